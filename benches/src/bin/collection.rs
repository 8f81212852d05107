//! Measures what collection and compaction cost.
//!
//! `cargo run --release -p tonnage-benches --bin collection -- cost DIR LIVE` fills a new store in `DIR` with `LIVE`
//! blobs that manifests list and 1,000 that none does, spread among them, and collects these. `... -- half DIR BLOBS`
//! fills it with `BLOBS` blobs of which every second one is dead, collects them and compacts. `... -- space DIR BLOBS
//! LOADED` fills it in the same way, and measures how long after the end of the grace the store has returned the space
//! by itself; with `true`, while images are pushed. Each prints lines of JSON: what was looked at, read and copied, the
//! time, and the peak memory.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tonnage_benches::images::{
    BLOBS_PER_IMAGE, Result, peak_rss, push_dead, push_images, rss_anon_mib,
};
use tonnage_engine::{CollectionReport, CollectionRequest, Options, Store};
use tonnage_server::runtime;

/// Dead blobs of `cost`.
const DEAD: u64 = 1000;
/// Pieces in which live and dead blobs are pushed in turn.
const PIECES: u64 = 100;
const GRACE: Duration = Duration::from_secs(1);
/// Grace of `space`: longer than the fill.
const SPACE_GRACE: Duration = Duration::from_mins(1);
/// Size of the segments of `space`.
const SPACE_SEGMENT_BYTES: u64 = 16 << 20;
/// Segments that are written at the same time, or wait to be unlinked.
const SEGMENTS_IN_USE: u64 = 4;
/// Bytes of a record beside its payload, on average.
const RECORD_BYTES: u64 = 160;

#[tokio::main]
async fn main() -> Result<()> {
    const USAGE: &str = "usage: collection cost DIR LIVE | half DIR BLOBS | space DIR BLOBS LOADED";
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or(USAGE);
    let (what, dir, blobs) = (next()?, next()?, next()?.parse()?);
    if what == "space" {
        return space(&PathBuf::from(dir), blobs, next()?.parse()?).await;
    }
    let options = Options {
        collection_grace: GRACE,
        collection_manual: true,
        ..Options::default()
    };
    let (store, _) = Store::open(runtime::env()?, &PathBuf::from(dir), options).await?;
    let (live, dead) = match what.as_str() {
        "cost" => (blobs, DEAD),
        "half" => (blobs / 2, blobs / 2),
        _ => return Err(USAGE.into()),
    };
    fill(&store, live, dead).await?;
    wait_for_grace(&store, dead).await?;
    store.checkpoint().await?;
    let before = rss_anon_mib()?;
    let stop = Arc::new(AtomicBool::new(false));
    let sampler = tokio::spawn(peak_rss(Arc::clone(&stop)));
    let (read_before, began) = (bytes_read()?, Instant::now());
    let collected = store.collect(CollectionRequest::default()).await?;
    let (read, took) = (bytes_read()? - read_before, began.elapsed());
    print("collect", live, &collected, read, took);
    let (read_before, began) = (bytes_read()?, Instant::now());
    let request = CollectionRequest {
        full: true,
        ..CollectionRequest::default()
    };
    let compacted = store.collect(request).await?;
    let (read, took) = (bytes_read()? - read_before, began.elapsed());
    print("compact", live, &compacted, read, took);
    stop.store(true, Ordering::Release);
    let peak = sampler.await?;
    println!(
        "{{\"step\":\"memory\",\"rss_anon_before_mib\":{before},\"rss_anon_peak_mib\":{peak}}}"
    );
    store.close().await?;
    Ok(())
}

/// Measures how long after the grace the store has only as much space as compaction in the background leaves.
async fn space(dir: &Path, blobs: u64, with_load: bool) -> Result<()> {
    let options = Options {
        collection_grace: SPACE_GRACE,
        shared_segment_bytes: SPACE_SEGMENT_BYTES,
        ..Options::default()
    };
    let (store, _) = Store::open(runtime::env()?, dir, options).await?;
    let (live, dead) = (blobs / 2, blobs / 2);
    fill(&store, live, dead).await?;
    let grace_ends = Instant::now() + SPACE_GRACE;
    let filled = segment_bytes(dir)?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = with_load.then(|| {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        tokio::spawn(async move { push_images(&store, live, u64::MAX - live, Some(stop)).await })
    });
    let is_back = async || {
        let stats = store.stats().await?;
        let records = stats.blob_bytes + stats.blobs * RECORD_BYTES;
        let allowed = records * 4 / 3 + SEGMENTS_IN_USE * SPACE_SEGMENT_BYTES;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(segment_bytes(dir)? <= allowed)
    };
    while store.collection_totals().blobs < dead / PIECES * PIECES || !is_back().await? {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seconds = grace_ends.elapsed().as_secs_f64();
    stop.store(true, Ordering::Release);
    let pushed = store.stats().await?.blobs.saturating_sub(live);
    if let Some(load) = load {
        load.await??;
    }
    println!(
        "{{\"step\":\"space\",\"dead\":{dead},\"loaded\":{with_load},\"pushed_meanwhile\":{pushed},\"segment_bytes_before\":{filled},\"segment_bytes_after\":{},\"seconds_after_grace\":{seconds:.1}}}",
        segment_bytes(dir)?,
    );
    store.close().await?;
    Ok(())
}

/// Returns the bytes of all segments.
fn segment_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir.join("segments"))? {
        // One that is unlinked meanwhile counts as nothing.
        bytes += entry?.metadata().map_or(0, |file| file.blocks() * 512);
    }
    Ok(bytes)
}

/// Pushes live and dead blobs in turn.
async fn fill(store: &Store, live: u64, dead: u64) -> Result<()> {
    let images = live / BLOBS_PER_IMAGE / PIECES;
    for piece in 0..PIECES {
        push_images(store, piece * images, images, None).await?;
        push_dead(store, piece * dead / PIECES, dead / PIECES).await?;
    }
    Ok(())
}

/// Waits until the grace of the dead blobs is over.
async fn wait_for_grace(store: &Store, dead: u64) -> Result<()> {
    // The first look starts grace; a dry run shows whether it is over.
    let request = CollectionRequest {
        dry_run: true,
        ..CollectionRequest::default()
    };
    while store.collect(request).await?.blobs < dead / PIECES * PIECES {
        tokio::time::sleep(GRACE / 2).await;
    }
    Ok(())
}

fn print(step: &str, live: u64, report: &CollectionReport, read: u64, took: Duration) {
    let CollectionReport {
        suspects,
        blobs,
        segments,
        compaction,
        ..
    } = report;
    println!(
        "{{\"step\":\"{step}\",\"live\":{live},\"suspects\":{suspects},\"blobs\":{blobs},\"segments\":{segments},\"bytes_read\":{read},\"moved_blobs\":{},\"moved_bytes\":{},\"freed_bytes\":{},\"seconds\":{:.3}}}",
        compaction.blobs,
        compaction.moved_bytes,
        compaction.freed_bytes,
        took.as_secs_f64(),
    );
}

/// Returns the bytes that this process has read by system calls, from memory or from the disk.
fn bytes_read() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    Ok(line.ok_or("no rchar in /proc/self/io")?.parse()?)
}
