//! Measures filling, checkpoints and starts of a store of millions of blobs with links, edges and names.
//!
//! `cargo run --release -p tonnage-benches --bin million -- DIR [BLOBS]` fills a new store in `DIR` through the
//! engine's own push path (one manifest, nine blobs and a tag at a time, 64 writers). It prints one line of JSON for
//! each step: filling, for each million; a checkpoint under load (its peak memory, the bytes it writes, the longest
//! commit meanwhile); a start after the filling process was killed during its work; a start after a clean stop; a start
//! from the journal alone (runs and checkpoints deleted).

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tonnage_benches::rival::anonymous_kib;
use tonnage_engine::{
    Algorithm, Batch, Change, Digest, FinishedBlob, ManifestEntry, Options, Origin, Store,
};
use tonnage_server::runtime;

const WRITERS: u64 = 64;
const BLOBS_PER_IMAGE: u64 = 10;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The last line of a filling process.
const READY: &str = "ready to be killed";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let fills = arguments.next_if(|first| first == "--fill").is_some();
    let dir = arguments.next().filter(|first| !first.starts_with('-'));
    let dir = PathBuf::from(dir.ok_or("usage: million DIR [BLOBS]")?);
    let blobs = arguments
        .next()
        .map_or(Ok(1_000_000), |text| text.parse::<u64>())?;
    if fills {
        return fill(&dir, blobs).await;
    }
    fill_and_kill(&dir, blobs)?;
    start(&dir, "start after kill -9").await?;
    start(&dir, "start after a clean stop").await?;
    for name in ["checkpoint.0", "checkpoint.1", "checkpoint.2"] {
        remove(&dir.join(name))?;
    }
    for entry in std::fs::read_dir(dir.join("runs"))? {
        std::fs::remove_file(entry?.path())?;
    }
    start(&dir, "start from the journal alone").await
}

/// Fills the store in another process, which is killed while it pushes.
fn fill_and_kill(dir: &Path, blobs: u64) -> Result<()> {
    let mut filling = Command::new(std::env::current_exe()?)
        .arg("--fill")
        .arg(dir)
        .arg(blobs.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(filling.stdout.take().ok_or("no stdout")?).lines();
    let mut ready = false;
    for line in lines {
        let line = line?;
        ready = line == READY;
        if ready {
            filling.kill()?;
            break;
        }
        println!("{line}");
    }
    filling.wait()?;
    if ready {
        Ok(())
    } else {
        Err("the filling process ended early".into())
    }
}

/// Fills a new store and continues to push until it is killed.
async fn fill(dir: &Path, blobs: u64) -> Result<()> {
    let (store, _) = Store::open(runtime::env()?, dir, Options::default()).await?;
    let images = blobs / BLOBS_PER_IMAGE;
    let step = (1_000_000 / BLOBS_PER_IMAGE).min(images).max(1);
    let began = Instant::now();
    let mut done = 0;
    while done < images {
        let (count, step_began) = (step.min(images - done), Instant::now());
        let longest = push_images(&store, done, count, None).await?;
        done += count;
        let (took, runs) = (step_began.elapsed(), store.stats().await?.runs);
        let written = runs.flushed_bytes + runs.merged_bytes;
        println!(
            "{{\"step\":\"fill\",\"blobs\":{},\"seconds\":{:.1},\"blobs_per_second\":{:.0},\"commit_max_ms\":{:.1},\"rss_anon_mib\":{},\"runs\":{},\"run_bytes\":{},\"flushed_bytes\":{},\"merged_bytes\":{},\"written_per_flushed_byte\":{:.2}}}",
            done * BLOBS_PER_IMAGE,
            began.elapsed().as_secs_f64(),
            (count * BLOBS_PER_IMAGE) as f64 / took.as_secs_f64(),
            longest.as_secs_f64() * 1e3,
            rss_anon_mib()?,
            runs.runs,
            runs.bytes,
            runs.flushed_bytes,
            runs.merged_bytes,
            written as f64 / runs.flushed_bytes.max(1) as f64,
        );
    }
    checkpoint_under_load(&store, images).await?;
    println!("{READY}");
    let next = images * 2;
    push_images(&store, next, u64::MAX / 2, None).await?;
    Ok(())
}

/// Writes a checkpoint while the writers continue, and prints memory, bytes and the longest commit.
async fn checkpoint_under_load(store: &Store, images: u64) -> Result<()> {
    let share = (images / 20).max(100);
    push_images(store, images, share, None).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let (load, sampler) = (store.clone(), tokio::spawn(peak_rss(Arc::clone(&stop))));
    let flag = Arc::clone(&stop);
    let before = rss_anon_mib()?;
    let pushing =
        tokio::spawn(
            async move { push_images(&load, images + share, u64::MAX / 2, Some(flag)).await },
        );
    let began = Instant::now();
    let report = store.checkpoint().await?;
    let took = began.elapsed();
    stop.store(true, Ordering::Release);
    let longest = pushing.await??;
    let peak = sampler.await?;
    println!(
        "{{\"step\":\"checkpoint under load\",\"seconds\":{:.2},\"bytes_written\":{},\"rss_anon_before_mib\":{before},\"rss_anon_peak_mib\":{peak},\"longest_push_ms\":{:.1}}}",
        took.as_secs_f64(),
        report.bytes_written,
        longest.as_secs_f64() * 1e3
    );
    Ok(())
}

async fn start(dir: &Path, step: &str) -> Result<()> {
    let began = Instant::now();
    let (store, report) = Store::open(runtime::env()?, dir, Options::default()).await?;
    let took = began.elapsed();
    println!(
        "{{\"step\":\"{step}\",\"seconds\":{:.3},\"transactions_replayed\":{},\"rss_anon_mib\":{}}}",
        took.as_secs_f64(),
        report.replayed,
        rss_anon_mib()?
    );
    store.close().await?;
    Ok(())
}

/// Pushes `count` images numbered from `first`. Returns the longest duration of a commit.
async fn push_images(
    store: &Store,
    first: u64,
    count: u64,
    stop: Option<Arc<AtomicBool>>,
) -> Result<Duration> {
    let next = Arc::new(AtomicU64::new(0));
    let longest = Arc::new(AtomicU64::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (store, next, longest, stop) = (
            store.clone(),
            Arc::clone(&next),
            Arc::clone(&longest),
            stop.clone(),
        );
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count
                    || stop
                        .as_ref()
                        .is_some_and(|stop| stop.load(Ordering::Acquire))
                {
                    return Ok(());
                }
                push_image(&store, first + number, &longest).await?;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        let done: Result<()> = done?;
        done?;
    }
    Ok(Duration::from_nanos(longest.load(Ordering::Relaxed)))
}

/// Pushes one manifest with nine blobs of a few hundred bytes, all different, and a tag.
async fn push_image(store: &Store, number: u64, longest: &AtomicU64) -> Result<()> {
    let repository = format!("load/{:03}", number % 500);
    let mut children = Vec::new();
    for part in 0..BLOBS_PER_IMAGE - 1 {
        let content = Bytes::from(format!("{number}/{part}/").repeat(32));
        let blob = store.put_small(content, Algorithm::Sha256).await?;
        children.push(blob.digest());
        let changes = vec![Change::Link(blob.digest())];
        commit(store, &repository, blob, changes, longest).await?;
    }
    let content = Bytes::from(format!("manifest {number}").repeat(24));
    let size = content.len() as u64;
    let blob = store.put_small(content, Algorithm::Sha256).await?;
    let digest: Digest = blob.digest();
    let attributes = Bytes::from_static(b"application/vnd.oci.image.manifest.v1+json");
    let entry = ManifestEntry {
        digest,
        size,
        children,
        subject: None,
        attributes,
    };
    let tag = Change::SetTag {
        tag: format!("v{number}"),
        digest,
    };
    let changes = vec![Change::PutManifest(entry), tag];
    commit(store, &repository, blob, changes, longest).await
}

async fn commit(
    store: &Store,
    repository: &str,
    blob: FinishedBlob,
    changes: Vec<Change>,
    longest: &AtomicU64,
) -> Result<()> {
    let batch = Batch {
        repository: repository.to_owned(),
        create_repository: true,
        requires: Vec::new(),
        staged: vec![blob],
        changes,
        origin: Origin::default(),
    };
    let began = Instant::now();
    store.commit(batch).await?;
    let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    longest.fetch_max(nanos, Ordering::Relaxed);
    Ok(())
}

/// Samples this process's anonymous memory ten times a second until `stop`. Returns the highest value, in MiB.
async fn peak_rss(stop: Arc<AtomicBool>) -> u64 {
    let mut peak = 0;
    while !stop.load(Ordering::Acquire) {
        peak = peak.max(rss_anon_mib().unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    peak
}

fn rss_anon_mib() -> Result<u64> {
    let kib = anonymous_kib(std::process::id()).ok_or("no RssAnon in /proc/self/status")?;
    Ok(kib / 1024)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
