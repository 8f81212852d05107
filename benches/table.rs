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
use tonnage_engine::table::{Base, Layers, Site};

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

/// Builds the rows in waves with a checkpoint after each, and prints what each took.
async fn build(root: &Path, count: u64) -> Layers {
    let site = Site::new(tonnage_server::runtime::env().unwrap(), root, [7; 16]);
    let mut layers = Layers::new(Base::empty());
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
        let done = checkpoint::run(&site, &history, FACTS, &frozen)
            .await
            .expect("a checkpoint");
        println!(
            "wave {wave}: put {put:?}, delta estimated {delta} MiB; checkpoint {:?}, {} MiB in {} files; \
             RssAnon {before} MiB before, {} MiB at most; base {} rows, {} MiB, resident {} KiB",
            start.elapsed(),
            done.bytes_written >> 20,
            done.files_written,
            sampler.stop(),
            done.base.rows(),
            done.base.bytes() >> 20,
            done.base.resident_bytes() >> 10
        );
        layers = frozen.rebase(done.base);
        history = done.history;
    }
    let start = Instant::now();
    let loaded = checkpoint::load(&site).await.unwrap();
    let rows = loaded.chosen.map_or(0, |chosen| chosen.base.rows());
    println!("open: {:?}, {rows} rows", start.elapsed());
    layers
}

fn bench(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory for the bench");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let count = rows();
    let layers = runtime.block_on(build(directory.path(), count));
    let base = Layers::new(Arc::clone(layers.base()));
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
    get("index row, present, 4 KiB page", &base, index_key, 0);
    get("index row, absent", &base, index_key, 2 * count);
    get("link row, present, 16 KiB page", &base, link_key, 0);
    get("link row, absent, 16 KiB page", &base, link_key, 2 * count);
    let mut live = Layers::new(Base::empty());
    for n in 0..count {
        put_blob(&mut live, n);
    }
    get("index row in the delta", &live, index_key, 0);
    group.bench_function("scan 1000 rows of the base", |bencher| {
        bencher.iter(|| {
            black_box(
                base.scan(Bound::Included(b"l"), Bound::Unbounded)
                    .take(1000)
                    .count(),
            );
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
