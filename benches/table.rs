//! What the ordered table costs: lookups in each layer, absent ones, scans, opening, a checkpoint.
//!
//! `TONNAGE_BENCH_ROWS` sets the number of blobs (200 000 by default); each also has a link and its reverse.

use std::hint::black_box;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tonnage_engine::checkpoint::{self, Facts, History};
use tonnage_engine::extent::Lsn;
use tonnage_engine::format::superblock::Superblock;
use tonnage_engine::table::{self, Layers, PageCache, Runs, Site};

const FACTS: Facts = Facts {
    lsn: Lsn(1),
    journal_number: 0,
    journal_offset: 0,
    next_repository: 0,
    next_segment: 0,
};

/// The `n`th value of a fixed sequence that looks random (splitmix64).
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The digest of the `n`th blob, as good as random.
fn digest(n: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (at, part) in bytes.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&mixed(n * 4 + at as u64).to_le_bytes());
    }
    bytes
}

/// Index key: prefix, keyed hash, algorithm, digest.
fn index_key(n: u64) -> Bytes {
    Bytes::from([b"b".as_slice(), &mixed(!n).to_be_bytes(), &[1], &digest(n)].concat())
}

/// Link key: prefix, repository, algorithm, digest.
fn link_key(n: u64) -> Bytes {
    Bytes::from([b"l".as_slice(), &(n % 1000).to_be_bytes(), &[1], &digest(n)].concat())
}

/// Its reverse.
fn holder_key(n: u64) -> Bytes {
    Bytes::from([b"h".as_slice(), &[1], &digest(n), &(n % 1000).to_be_bytes()].concat())
}

fn rows() -> u64 {
    std::env::var("TONNAGE_BENCH_ROWS")
        .ok()
        .and_then(|rows| rows.parse().ok())
        .unwrap_or(200_000)
}

fn put_blob(layers: &mut Layers, n: u64) {
    layers.put(index_key(n), Some(Bytes::from(vec![0x5a; 36])));
    layers.put(link_key(n), Some(Bytes::new()));
    layers.put(holder_key(n), Some(Bytes::new()));
}

/// A line of `/proc/self/status`, in MiB.
fn status_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default()
        >> 10
}

/// Samples this process's anonymous memory every 2 ms.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sampler {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !seen.load(Ordering::Relaxed) {
                most = most.max(status_mib("RssAnon:"));
                std::thread::sleep(Duration::from_millis(2));
            }
            most
        });
        Self { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Blobs between two checkpoints: about the delta at which a store starts one.
const WAVE: u64 = 50_000;

/// A site with that much memory for pages.
fn site(root: &Path, cache_bytes: usize) -> Site {
    let superblock = Superblock {
        store_id: [7; 16],
        hash_key: [9; 16],
        compatible: 0,
        read_only_compatible: 0,
        incompatible: 0,
        created_unix_ms: 0,
    };
    let env = tonnage_server::runtime::env().expect("threads");
    let mut site = Site::new(env, root, &superblock);
    site.cache = Arc::new(PageCache::new(cache_bytes));
    site
}

/// Builds the rows in waves with a checkpoint after each and the merges that are due, and prints what each took.
async fn build(root: &Path, count: u64) {
    let site = site(root, 0);
    let mut layers = Layers::new(Runs::empty());
    let mut history = History::default();
    for wave in 0..count.div_ceil(WAVE) {
        let start = Instant::now();
        for n in wave * WAVE..count.min((wave + 1) * WAVE) {
            put_blob(&mut layers, n);
        }
        let (put, delta) = (start.elapsed(), layers.delta_bytes() >> 20);
        let before = status_mib("RssAnon:");
        let frozen = layers.freeze();
        let sampler = Sampler::start();
        let start = Instant::now();
        let done = checkpoint::flush(&site, &history, FACTS, &frozen, frozen.runs())
            .await
            .expect("a checkpoint");
        layers = frozen.unfreeze(done.runs);
        history = done.history;
        let (flushed, mut merged) = (start.elapsed(), 0);
        while let Some(range) = layers.runs().due(&site) {
            let runs = table::merge(&site, layers.runs(), range).await;
            let runs = runs.expect("a merge").over(layers.runs());
            let done = checkpoint::publish(&site, &history, runs).await;
            let done = done.expect("a checkpoint");
            merged += done.bytes_written;
            layers = layers.with_runs(done.runs);
            history = done.history;
        }
        let runs = layers.runs();
        println!(
            "wave {wave}: put {put:?}, delta estimated {delta} MiB; checkpoint {flushed:?}, {} MiB; with merges {:?}, {} MiB; \
             RssAnon {before} MiB before, {} MiB at most; {} runs, {} rows, {} MiB, resident {} KiB",
            done.bytes_written >> 20,
            start.elapsed(),
            merged >> 20,
            sampler.stop(),
            runs.count(),
            runs.rows(),
            runs.bytes() >> 20,
            runs.resident_bytes() >> 10
        );
    }
}

/// Opens what was built.
async fn open(root: &Path, cache_bytes: usize) -> Layers {
    let start = Instant::now();
    let loaded = checkpoint::load(&site(root, cache_bytes)).await;
    let chosen = loaded.expect("slots").chosen.expect("a checkpoint");
    println!("open: {:?}, {} rows", start.elapsed(), chosen.runs.rows());
    Layers::new(chosen.runs)
}

fn bench(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory for the bench");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let count = rows();
    runtime.block_on(build(directory.path(), count));
    let cached = runtime.block_on(open(directory.path(), 1 << 30));
    let read = runtime.block_on(open(directory.path(), 0));
    let keys = |key: fn(u64) -> Bytes, offset: u64| {
        let mut n = 0;
        move || {
            n += 1;
            key(mixed(n) % count + offset)
        }
    };
    let mut group = criterion.benchmark_group("table");
    let mut get = |name: &str, layers: &Layers, key: fn(u64) -> Bytes, offset: u64| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                keys(key, offset),
                |key| black_box(layers.get(&key)),
                BatchSize::SmallInput,
            );
        });
    };
    get("index row, page in memory", &cached, index_key, 0);
    get("index row, page of 4 KiB read", &read, index_key, 0);
    get("index row, absent", &cached, index_key, 2 * count);
    get("link row, page in memory", &cached, link_key, 0);
    get("link row, page of 16 KiB read", &read, link_key, 0);
    get("link row, absent", &cached, link_key, 2 * count);
    let mut live = Layers::new(Runs::empty());
    for n in 0..count {
        put_blob(&mut live, n);
    }
    get("index row in the delta", &live, index_key, 0);
    group.bench_function("scan 1000 rows of the runs", |bencher| {
        bencher.iter(|| {
            black_box(
                cached
                    .scan(Bound::Included(b"l"), Bound::Unbounded)
                    .take(1000)
                    .count(),
            );
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
