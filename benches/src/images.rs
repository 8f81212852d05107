//! Images of small blobs, pushed through the engine's own path by many writers, and the memory of this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tonnage_engine::{
    Algorithm, Batch, Change, Digest, FinishedBlob, ManifestEntry, Origin, Store,
};

use crate::process::anonymous_kib;

const WRITERS: u64 = 64;
/// Blobs of one image, its manifest included.
pub const BLOBS_PER_IMAGE: u64 = 10;

/// The result of a step of a benchmark.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Pushes `count` images numbered from `first`. Returns the longest duration of a commit.
pub async fn push_images(
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
        commit_timed(store, &repository, blob, changes, longest).await?;
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
    commit_timed(store, &repository, blob, changes, longest).await
}

async fn commit_timed(
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

/// Pushes `count` blobs of about 300 bytes, numbered from `first`, that no manifest lists.
pub async fn push_dead(store: &Store, first: u64, count: u64) -> Result<()> {
    let next = Arc::new(AtomicU64::new(first));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (store, next) = (store.clone(), Arc::clone(&next));
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= first + count {
                    return Ok(());
                }
                let content = Bytes::from(format!("dead {number}/").repeat(32));
                let blob = store.put_small(content, Algorithm::Sha256).await?;
                let changes = vec![Change::Link(blob.digest())];
                commit_timed(&store, "dead", blob, changes, &AtomicU64::new(0)).await?;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        let done: Result<()> = done?;
        done?;
    }
    Ok(())
}

/// Samples this process's anonymous memory ten times a second until `stop`. Returns the highest value, in MiB.
pub async fn peak_rss(stop: Arc<AtomicBool>) -> u64 {
    let mut peak = 0;
    while !stop.load(Ordering::Acquire) {
        peak = peak.max(rss_anon_mib().unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    peak
}

/// Returns this process's anonymous memory, in MiB.
pub fn rss_anon_mib() -> Result<u64> {
    let kib = anonymous_kib(std::process::id()).ok_or("no RssAnon in /proc/self/status")?;
    Ok(kib / 1024)
}
