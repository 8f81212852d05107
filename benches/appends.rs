//! Measures appends to segments: small blobs one after the other and many at once, which share writes and syncs, and
//! a large blob, which streams into a segment of its own.
//!
//! No commit follows, and the store is empty. In the time are SHA-256, the checksums of chunks, the write and the sync;
//! `hashing` measures the first two alone. Small blobs come in one piece. A large one comes in pieces, as in a request.

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use tokio::task::JoinSet;
use tonnage_benches::store::BenchStore;
use tonnage_benches::store::content::{random, upload};
use tonnage_engine::{Algorithm, Digest, Store};

/// Sizes of small blobs in bytes, and how many are appended at once.
const SMALL: [(usize, u64); 4] = [(1 << 10, 1), (1 << 10, 64), (64 << 10, 1), (64 << 10, 64)];
/// Sizes of large blobs in bytes.
const LARGE: [usize; 2] = [16 << 20, 256 << 20];

/// Appends `group` blobs at the same time, `iterations` times, numbered from `first`. Returns how long that took.
async fn append_small(
    store: &Store,
    content: &[u8],
    group: u64,
    first: u64,
    iterations: u64,
) -> Duration {
    let mut took = Duration::ZERO;
    for iteration in 0..iterations {
        let contents: Vec<Bytes> = (0..group)
            .map(|member| {
                let number = first + iteration * group + member;
                let mut content = content.to_vec();
                content[..8].copy_from_slice(&number.to_le_bytes());
                Bytes::from(content)
            })
            .collect();
        let began = Instant::now();
        let mut appends = JoinSet::new();
        for content in contents {
            let store = store.clone();
            appends.spawn(async move { store.put_small(content, Algorithm::Sha256).await });
        }
        for appended in appends.join_all().await {
            appended.expect("an append");
        }
        took += began.elapsed();
    }
    took
}

fn small(criterion: &mut Criterion) {
    let opened = BenchStore::empty();
    let mut criterion_group = criterion.benchmark_group("appends");
    criterion_group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2));
    let mut appended = 0;
    for (size, group) in SMALL {
        let content = random(size);
        let id = BenchmarkId::new(format!("{group} at once"), size);
        criterion_group.throughput(Throughput::Bytes(size as u64 * group));
        criterion_group.bench_function(id, |bencher| {
            bencher.iter_custom(|iterations| {
                let first = appended;
                appended += iterations * group;
                let appends = append_small(&opened.store, &content, group, first, iterations);
                opened.runtime.block_on(appends)
            });
        });
    }
    criterion_group.finish();
    opened.close();
}

fn large(criterion: &mut Criterion) {
    let opened = BenchStore::empty();
    let mut group = criterion.benchmark_group("appends");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(2));
    for size in LARGE {
        let content = Bytes::from(random(size));
        let digest = Digest::of(Algorithm::Sha256, &content);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("a large blob", size), |bencher| {
            bencher.iter_custom(|iterations| {
                let uploads = async {
                    let mut took = Duration::ZERO;
                    for _ in 0..iterations {
                        let began = Instant::now();
                        let blob = upload(&opened.store, &content, digest).await;
                        took += began.elapsed();
                        // Nothing names it, so its segment is removed.
                        drop(blob);
                    }
                    took
                };
                opened.runtime.block_on(uploads)
            });
        });
    }
    group.finish();
    opened.close();
}

criterion_group!(benches, small, large);
criterion_main!(benches);
