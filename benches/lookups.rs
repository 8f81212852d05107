//! Measures lookups in index and catalog through a view: rows in memory, in runs on disk, and absent rows; lists;
//! opening.
//!
//! `TONNAGE_BENCH_BLOBS` sets the number of blobs (50 000 by default), each with a link. Pages of runs stay in memory
//! up to 32 MiB: with many more blobs a lookup reads its page from the kernel's cache. The program `million` measures
//! checkpoints and merges.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::task::JoinSet;
use tonnage_engine::{Algorithm, Batch, Change, Digest, Options, Origin, Store, View};
use tonnage_server::runtime;

const REPOSITORY: &str = "bench/lookups";
/// Blobs in a commit.
const BATCH: u64 = 100;
/// Links in a list.
const LIST: usize = 1000;

/// Returns the `n`th value of a fixed sequence that looks random (splitmix64).
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn blobs() -> u64 {
    std::env::var("TONNAGE_BENCH_BLOBS")
        .ok()
        .and_then(|blobs| blobs.parse().ok())
        .unwrap_or(50_000)
}

fn content(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

fn digest(n: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &content(n))
}

async fn open(root: &Path) -> Store {
    let env = runtime::env().expect("threads");
    let opened = Store::open(env, root, Options::default()).await;
    opened.expect("a store").0
}

/// Stores and links the blobs of a range, and the rest of the last batch.
async fn fill(store: &Store, blobs: std::ops::Range<u64>) {
    for first in blobs.step_by(BATCH as usize) {
        let mut puts = JoinSet::new();
        for n in first..first + BATCH {
            let store = store.clone();
            puts.spawn(async move { store.put_small(content(n), Algorithm::Sha256).await });
        }
        let mut changes = Vec::new();
        let mut staged = Vec::new();
        for blob in puts.join_all().await {
            let blob = blob.expect("a blob");
            let link = Change::Link(blob.digest());
            staged.push(blob);
            changes.push(link);
        }
        let batch = Batch {
            repository: REPOSITORY.to_owned(),
            create_repository: true,
            requires: Vec::new(),
            staged,
            changes,
            origin: Origin::default(),
        };
        store.commit(batch).await.expect("a commit");
    }
}

/// Measures lookups of `count` blobs from `from` on, in turn.
fn lookups(criterion: &mut Criterion, layer: &str, view: &View, from: u64, count: u64) {
    // Hashing a content takes longer than looking it up.
    let digests: Vec<Digest> = (0..count.min(50_000))
        .map(|n| digest(from + mixed(n) % count))
        .collect();
    let mut next = digests.iter().cycle();
    let mut next = move || next.next().expect("there are some");
    let repository = view.repository(REPOSITORY).expect("a row");
    let repository = repository.expect("the repository");
    let mut group = criterion.benchmark_group("lookups");
    group.bench_function(format!("index row, {layer}"), |bencher| {
        bencher.iter(|| black_box(view.blob(next())).expect("a row"));
    });
    group.bench_function(format!("link row, {layer}"), |bencher| {
        bencher.iter(|| black_box(repository.is_linked(next())).expect("a row"));
    });
    group.finish();
}

fn bench(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory for the bench");
    let root = directory.path();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let count = blobs();
    let store = runtime.block_on(async {
        let store = open(root).await;
        fill(&store, 0..count).await;
        store.close().await.expect("a close");
        drop(store);
        let began = Instant::now();
        let store = open(root).await;
        println!("open: {:?}, {count} blobs", began.elapsed());
        store
    });
    let view = store.view();
    lookups(criterion, "in a run", &view, 0, count);
    lookups(criterion, "absent", &view, 2 * count, count);
    let repository = view.repository(REPOSITORY).expect("a row");
    let repository = repository.expect("the repository");
    criterion.bench_function(&format!("list of {LIST} links in a run"), |bencher| {
        bencher.iter(|| black_box(repository.links(None, LIST)).expect("rows"));
    });
    let fresh = 10 * BATCH;
    runtime.block_on(fill(&store, 4 * count..4 * count + fresh));
    lookups(criterion, "in the delta", &store.view(), 4 * count, fresh);
    runtime.block_on(store.close()).expect("a close");
}

criterion_group!(benches, bench);
criterion_main!(benches);
