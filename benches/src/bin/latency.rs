//! Measures how much collection and compaction slow down pushes and pulls.
//!
//! `cargo run --release -p tonnage-benches --bin latency -- DIR [PAIRS]` opens two new stores in `DIR`, of which only
//! one collects and compacts. It first measures how many operations saturate one, half pushes and half pulls of 4 KiB.
//! Then it sends half as many, at fixed times, in pairs of windows, to each store in turn. Before each window it pushes
//! small blobs that no manifest lists, whose grace ends in the window, and waits for a checkpoint. It prints the 99th
//! percentiles of each window, counted from the time at which an operation was due, and the median of the ratios.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tonnage_benches::images::{Result, push_dead};
use tonnage_engine::{
    Algorithm, Batch, Change, ClientId, Digest, ManifestEntry, Options, Origin, Store,
};
use tonnage_server::runtime;

const GRACE: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(6);
const WORKERS: u64 = 32;
/// Small blobs that are pushed before each window.
const BEFORE: u64 = 20_000;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: latency DIR [PAIRS]")?);
    let pairs: u64 = arguments.next().map_or(Ok(9), |text| text.parse())?;
    let loads = [
        Load::open(&dir.join("kept"), true).await?,
        Load::open(&dir.join("collected"), false).await?,
    ];
    let rate = saturation(&loads[1]).await? / 2;
    println!("{{\"step\":\"saturation\",\"half_per_second\":{rate}}}");
    let (mut pushes, mut pulls) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        let mut p99 = [[Duration::ZERO; 2]; 2];
        for turn in 0..2 {
            let which = usize::from((pair + turn) % 2 == 0);
            let Load { store, .. } = &*loads[which];
            push_dead(store, pair * BEFORE, BEFORE).await?;
            store.checkpoint().await?;
            let before = (store.collection_totals(), store.compaction_totals());
            let found = window(&loads[which], rate).await?;
            let after = (store.collection_totals(), store.compaction_totals());
            println!(
                "{{\"step\":\"window\",\"collects\":{},\"push_p99_ms\":{:.2},\"pull_p99_ms\":{:.2},\"collected\":{},\"moved_bytes\":{},\"lock_hold_max_us\":{}}}",
                which == 1,
                found[0].as_secs_f64() * 1e3,
                found[1].as_secs_f64() * 1e3,
                after.0.blobs - before.0.blobs,
                after.1.moved_bytes - before.1.moved_bytes,
                after.0.lock_hold_max.as_micros(),
            );
            p99[which] = found;
            // What is left of the garbage belongs to no window.
            tokio::time::sleep(GRACE).await;
        }
        let ratio = |which: usize| p99[1][which].as_secs_f64() / p99[0][which].as_secs_f64();
        pushes.push(ratio(0));
        pulls.push(ratio(1));
    }
    println!(
        "{{\"step\":\"median ratio of p99\",\"pairs\":{pairs},\"push\":{:.2},\"pull\":{:.2}}}",
        median(pushes),
        median(pulls)
    );
    for load in loads {
        load.store.close().await?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Pushes and pulls of manifests of 4 KiB, which stay.
struct Load {
    store: Store,
    next: AtomicU64,
}

impl Load {
    /// Opens a new store, and pushes what is pulled. A `manual` one neither collects nor compacts.
    async fn open(dir: &Path, manual: bool) -> Result<Arc<Self>> {
        let options = Options {
            collection_grace: GRACE,
            collection_manual: manual,
            shared_segment_bytes: 16 << 20,
            ..Options::default()
        };
        let (store, _) = Store::open(runtime::env()?, dir, options).await?;
        let next = AtomicU64::new(0);
        let load = Arc::new(Self { store, next });
        for _ in 0..1000 {
            load.push().await?;
        }
        Ok(load)
    }

    fn content(number: u64) -> Bytes {
        Bytes::from(format!("{number:016}").repeat(256))
    }

    async fn push(&self) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let content = Self::content(number);
        let size = content.len() as u64;
        let blob = self.store.put_small(content, Algorithm::Sha256).await?;
        let entry = ManifestEntry {
            digest: blob.digest(),
            size,
            children: Vec::new(),
            subject: None,
            attributes: Bytes::from_static(b"application/vnd.oci.image.manifest.v1+json"),
        };
        let batch = Batch {
            repository: format!("load/{:03}", number % 500),
            create_repository: true,
            requires: Vec::new(),
            staged: vec![blob],
            changes: vec![Change::PutManifest(entry)],
            origin: Origin::default(),
        };
        self.store.commit(batch).await?;
        Ok(())
    }

    async fn pull(&self, number: u64) -> Result<()> {
        let digest = Digest::of(Algorithm::Sha256, &Self::content(number % 1000));
        let found = self.store.view().read(|view| view.blob(&digest)).await?;
        let found = found.ok_or("a manifest is gone")?;
        let opened = self.store.open_found(&digest, &found, ClientId::default());
        let reader = opened.await?.ok_or("a manifest is gone")?;
        let mut stream = reader.read(0..reader.len());
        while stream.next().await?.is_some() {}
        Ok(())
    }

    /// Runs the operation of this number: a push if it is even.
    async fn run(&self, number: u64) -> Result<()> {
        if number.is_multiple_of(2) {
            self.push().await
        } else {
            self.pull(number / 2).await
        }
    }
}

/// Returns how many operations a second `WORKERS` workers reach that wait for nothing else.
async fn saturation(load: &Arc<Load>) -> Result<u64> {
    let (began, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..WORKERS {
        let (load, done) = (Arc::clone(load), Arc::clone(&done));
        workers.spawn(async move {
            while began.elapsed() < WINDOW {
                load.run(done.fetch_add(1, Ordering::Relaxed)).await?;
            }
            Ok(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        let ended: Result<()> = ended?;
        ended?;
    }
    let done = done.load(Ordering::Relaxed) as f64;
    Ok((done / began.elapsed().as_secs_f64()) as u64)
}

/// Sends `rate` operations a second for one window. Returns the 99th percentiles of pushes and of pulls.
async fn window(load: &Arc<Load>, rate: u64) -> Result<[Duration; 2]> {
    let mut operations = tokio::task::JoinSet::new();
    let began = tokio::time::Instant::now();
    let count = rate * WINDOW.as_secs();
    for number in 0..count {
        let due = began + Duration::from_secs_f64(number as f64 / rate as f64);
        if due > tokio::time::Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        let load = Arc::clone(load);
        operations.spawn(async move {
            load.run(number).await?;
            Ok((number, due.elapsed()))
        });
    }
    let mut took = [Vec::new(), Vec::new()];
    while let Some(ended) = operations.join_next().await {
        let ended: Result<(u64, Duration)> = ended?;
        let (number, duration) = ended?;
        took[usize::from(number % 2 == 1)].push(duration);
    }
    Ok(took.map(|mut durations| {
        durations.sort();
        let at = durations.len() * 99 / 100;
        durations.get(at).copied().unwrap_or_default()
    }))
}
