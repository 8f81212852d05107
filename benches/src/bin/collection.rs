//! Measures what collection and compaction cost.
//!
//! `cargo run --release -p tonnage-benches --bin collection -- cost DIR LIVE` fills a new store in `DIR` with `LIVE`
//! blobs that manifests list and 1,000 that none does, spread among them, and collects these. `... -- half DIR BLOBS`
//! fills it with `BLOBS` blobs of which every second one is dead, collects them and compacts. Each prints one line of
//! JSON: what was looked at, read and copied, the time, the peak memory, and the longest hold of the queue's lock.

use std::path::PathBuf;
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

#[tokio::main]
async fn main() -> Result<()> {
    const USAGE: &str = "usage: collection cost DIR LIVE | collection half DIR BLOBS";
    let mut arguments = std::env::args().skip(1);
    let (what, dir) = (
        arguments.next().ok_or(USAGE)?,
        arguments.next().ok_or(USAGE)?,
    );
    let blobs: u64 = arguments.next().ok_or(USAGE)?.parse()?;
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

/// Pushes live and dead blobs in turn, and waits until the grace of the dead ones is over.
async fn fill(store: &Store, live: u64, dead: u64) -> Result<()> {
    let images = live / BLOBS_PER_IMAGE / PIECES;
    for piece in 0..PIECES {
        push_images(store, piece * images, images, None).await?;
        push_dead(store, piece * dead / PIECES, dead / PIECES).await?;
    }
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
