//! Exports the engine's counters as metrics.
//!
//! Owns: [`StoreMetrics`], the metric families of the disk, whose labels are I/O classes and backends, of its free
//! space, of the files of index and catalog, and those of collection, compaction and scrub.
//! Refuses: gathering; the numbers are read from the store at each scrape.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tonnage_engine::Store;

#[derive(Debug)]
pub(super) struct StoreMetrics(pub(super) Store);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    class: &'static str,
    backend: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    class: &'static str,
    backend: &'static str,
    attempted: &'static str,
}

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.io_counts();
        let operations = counts.iter().map(|count| {
            let labels = OperationLabels {
                class: count.class.name(),
                backend: count.backend,
            };
            (labels, count.operations)
        });
        family(
            &mut encoder,
            "io_operations",
            "Disk operations by purpose and by what served them, without reads from the page cache",
            operations,
        )?;
        let failures = counts.iter().flat_map(|count| {
            [("yes", count.failed), ("no", count.not_attempted)].map(|(attempted, value)| {
                let labels = FailureLabels {
                    class: count.class.name(),
                    backend: count.backend,
                    attempted,
                };
                (labels, value)
            })
        });
        family(
            &mut encoder,
            "io_failures",
            "Disk operations that failed, or were not attempted because descriptors, threads or memory were missing",
            failures,
        )?;
        self.encode_space(&mut encoder)?;
        self.encode_index(&mut encoder)?;
        self.encode_collection(&mut encoder)?;
        self.encode_compaction(&mut encoder)?;
        self.encode_scrub(&mut encoder)
    }
}

impl StoreMetrics {
    fn encode_index(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.run_stats();
        for (name, help, value) in [
            (
                "index_unchecked_files",
                "Files of index and catalog whose check after the start is not over",
                stats.unchecked,
            ),
            (
                "index_damaged",
                "Whether index or catalog were found damaged on disk (1) or not (0); a restart rebuilds them",
                u64::from(stats.damaged),
            ),
        ] {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)?;
        }
        Ok(())
    }

    fn encode_space(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // The system may not say.
        let Some(space) = self.0.disk_space() else {
            return Ok(());
        };
        for (name, help, value) in [
            (
                "storage_free_bytes",
                "Bytes free on the store's file system, measured at the last push or scrape",
                space.available_bytes,
            ),
            (
                "storage_free_min_bytes",
                "Free bytes below which pushes are refused",
                space.free_min_bytes,
            ),
            (
                "storage_nearly_full",
                "Whether fewer bytes are free than that (1) or not (0)",
                u64::from(space.is_low()),
            ),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)?;
        }
        Ok(())
    }

    fn encode_compaction(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let compacted = self.0.compaction_totals();
        for (name, help, value) in [
            (
                "compacted_segments",
                "Segments that compaction freed",
                compacted.segments,
            ),
            (
                "compacted_blobs",
                "Blobs that compaction moved",
                compacted.blobs,
            ),
            (
                "compaction_written_bytes",
                "Bytes of records that compaction copied",
                compacted.moved_bytes,
            ),
            (
                "compaction_read_bytes",
                "Bytes that compaction read from segments",
                compacted.read_bytes,
            ),
            (
                "compaction_freed_bytes",
                "Dead bytes whose space compaction returned",
                compacted.freed_bytes,
            ),
        ] {
            counter(encoder, name, help, value)?;
        }
        Ok(())
    }

    fn encode_collection(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.0.collection_totals();
        for (name, help, value) in [
            (
                "collection_candidates",
                "Suspects whose grace was over, so that collection looked them up",
                totals.candidates,
            ),
            (
                "collected_manifests",
                "Manifests that collection removed from their repositories",
                totals.manifests,
            ),
            (
                "collected_blobs",
                "Blobs that collection removed",
                totals.blobs,
            ),
            (
                "collected_bytes",
                "Payload bytes of blobs that collection removed",
                totals.bytes,
            ),
            (
                "collected_segments",
                "Segments that collection unlinked",
                totals.segments,
            ),
        ] {
            counter(encoder, name, help, value)?;
        }
        let milliseconds = Duration::from_millis;
        for (name, help, value) in [
            (
                "collection_lag_seconds",
                "Longest time, grace included, from a blob's last reference lost to its space returned, in the last cycle that removed blobs",
                milliseconds(totals.lag_last_ms),
            ),
            (
                "collection_lag_max_seconds",
                "The same in all cycles since the start",
                milliseconds(totals.lag_max_ms),
            ),
            (
                "collection_lock_hold_max_seconds",
                "Longest time since the start for which collection or compaction held the lock under which commits are queued",
                totals.lock_hold_max,
            ),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value.as_secs_f64()).encode(gauge)?;
        }
        let last = encoder.encode_descriptor(
            "collection_last_success_timestamp_seconds",
            "Unix time at which the last cycle of collection ended without an error; 0 before the first",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(totals.last_success_unix_ms / 1000).encode(last)
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(counter)
}

impl StoreMetrics {
    fn encode_scrub(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.0.scrub_totals();
        for (name, help, value) in [
            ("scrub_bytes", "Bytes that scrub read", totals.bytes),
            ("scrub_blobs", "Blobs that scrub found intact", totals.blobs),
            (
                "scrub_damaged_blobs",
                "Blobs that scrub found damaged; one that stays so counts in each pass",
                totals.damaged,
            ),
        ] {
            counter(encoder, name, help, value)?;
        }
        for (name, help, unix_ms) in [
            (
                "scrub_last_success_timestamp_seconds",
                "Unix time at which the last complete pass of scrub ended; 0 before the first",
                totals.last_success_unix_ms,
            ),
            (
                "scrub_last_digests_timestamp_seconds",
                "Unix time at which the last complete pass of scrub with digests ended; 0 before the first",
                totals.last_digests_unix_ms,
            ),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(unix_ms / 1000).encode(gauge)?;
        }
        Ok(())
    }
}

/// Encodes a family of counters.
fn family<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counters: impl Iterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in counters {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
