//! Collection, beside all other work: the task that repeats the cycle.
//!
//! Owns: [`Collection`], what is remembered between two cycles. `cycle` has the cycle itself, `manifests` its part for
//! manifests, `rest` when it rests, and `report` what it is asked and what it found. Refuses: the rules (`collection`),
//! queueing removals (`commit::removals`), and returning space (`store::reclaim`, `store::compaction`).
//!
//! Invariant: one cycle runs at a time.

mod cycle;
mod manifests;
mod report;
mod rest;

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

pub(super) use cycle::collect;
pub use report::{
    CollectedBlob, CollectedManifest, CollectionReport, CollectionRequest, CollectionTotals,
};

use self::manifests::NextManifest;
use super::Inner;
use super::background::or_closing;
use super::repeated_job::RepeatedJob;
use crate::collection::GraceClock;
use crate::error::Error;
use crate::extent::Lsn;
use crate::jobs::JobKind;
use crate::options::Options;
use crate::sync::{AtomicU64, Mutex};

/// Shortest and longest time between two cycles; between them, an eighth of the grace.
const CYCLE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

/// What collection remembers between two cycles.
#[derive(Debug)]
pub(super) struct Collection {
    cycle: Duration,
    totals: Mutex<CollectionTotals>,
    /// Held by the cycle that runs.
    memory: tokio::sync::Mutex<Memory>,
    /// Number of requests that wait for the cycle that runs.
    waiting: AtomicU64,
}

#[derive(Debug)]
struct Memory {
    grace: GraceClock,
    /// The first transaction of which a suspect is left; `None` if that is not known.
    oldest: Option<Lsn>,
    /// When a manifest may be removed; `None` if that is not known.
    manifests: Option<NextManifest>,
}

impl Collection {
    /// Starts at `now`, with `durable` as the last durable transaction.
    pub(super) fn new(options: &Options, now: Duration, durable: Lsn) -> Self {
        let mut grace = GraceClock::new(options.collection_grace);
        grace.observe(now, durable);
        Self {
            cycle: (options.collection_grace / 8).clamp(CYCLE.0, CYCLE.1),
            totals: Mutex::default(),
            memory: tokio::sync::Mutex::new(Memory {
                grace,
                oldest: None,
                manifests: None,
            }),
            waiting: AtomicU64::new(0),
        }
    }

    /// Returns the totals.
    pub(super) fn totals(&self) -> CollectionTotals {
        *self.totals.lock()
    }

    /// Returns the time between two cycles.
    pub(super) fn pause(&self) -> Duration {
        self.cycle
    }

    /// Waits for the cycle that runs, which no longer rests meanwhile.
    async fn lock(&self) -> tokio::sync::MutexGuard<'_, Memory> {
        let _waits = Waits::begin(&self.waiting);
        self.memory.lock().await
    }

    fn add(&self, report: &CollectionReport, lost_unix_ms: Option<u64>, now_unix_ms: u64) {
        let mut totals = self.totals.lock();
        totals.manifests += report.manifests;
        totals.blobs += report.blobs;
        totals.bytes += report.bytes;
        totals.segments += report.segments;
        totals.candidates += report.suspects - report.in_grace;
        if let Some(lost) = lost_unix_ms {
            totals.lag_last_ms = now_unix_ms.saturating_sub(lost);
            totals.lag_max_ms = totals.lag_max_ms.max(totals.lag_last_ms);
        }
        totals.last_success_unix_ms = now_unix_ms;
    }
}

/// Counts one that waits, until it drops.
pub(super) struct Waits<'a>(&'a AtomicU64);

impl<'a> Waits<'a> {
    pub(super) fn begin(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Repeats the cycle until the store closes.
pub(super) async fn task(store: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    let mut job = RepeatedJob::new(JobKind::Collection);
    loop {
        let Some(inner) = store.upgrade() else { return };
        let pause = inner.env.clock.sleep(inner.collection.cycle);
        drop(inner);
        if !or_closing(job.rest(pause), &mut closing).await {
            return;
        }
        let Some(inner) = store.upgrade() else { return };
        let ended = cycle::run_due(&inner, &mut job).await;
        job.end();
        match ended {
            Ok(report) if report.blobs > 0 || report.manifests > 0 => {
                let CollectionReport {
                    manifests,
                    blobs,
                    bytes,
                    segments,
                    ..
                } = report;
                tracing::info!(manifests, blobs, bytes, segments, "garbage was collected");
            }
            Ok(_) => {}
            Err(Error::Closed | Error::Poisoned { .. }) => return,
            Err(Error::Cancelled) => tracing::info!("an operator cancelled the collection"),
            Err(Error::Paused) => tracing::info!("an operator paused the collection"),
            Err(error) => {
                tracing::warn!(%error, "garbage could not be collected; its space is not free yet; trying again");
            }
        }
    }
}
