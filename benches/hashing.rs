//! Measures what a push and a pull compute of their bytes, in memory and on one thread: the digest of each algorithm,
//! the checksums of chunks, and their verification.
//!
//! A push computes one digest and the checksums; a pull verifies the checksums of each window. The buffer is read again
//! and again, so up to 1 MiB stays in the processor's cache, as a window that was just received or read does.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use tonnage_benches::store::content::random;
use tonnage_engine::format::checksum::{ChunkChecksums, check_chunks};
use tonnage_engine::{Algorithm, Digest};

/// Sizes of the content, in bytes: a small blob, a chunk, a window.
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    group
}

fn digests(criterion: &mut Criterion) {
    let mut group = group(criterion, "digest");
    for size in SIZES {
        let content = random(size);
        group.throughput(Throughput::Bytes(size as u64));
        for algorithm in Algorithm::ALL {
            group.bench_function(BenchmarkId::new(algorithm.name(), size), |bencher| {
                bencher.iter(|| Digest::of(algorithm, black_box(&content)));
            });
        }
    }
    group.finish();
}

fn chunks(criterion: &mut Criterion) {
    let mut group = group(criterion, "chunks");
    for size in SIZES {
        let content = random(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("checksums", size), |bencher| {
            bencher.iter(|| {
                let mut checksums = ChunkChecksums::default();
                checksums.update(black_box(&content));
                checksums.table()
            });
        });
        let mut checksums = ChunkChecksums::default();
        checksums.update(&content);
        let table = checksums.table();
        group.bench_function(BenchmarkId::new("verification", size), |bencher| {
            bencher.iter(|| check_chunks(black_box(&content), &table).expect("intact chunks"));
        });
    }
    group.finish();
}

criterion_group!(benches, digests, chunks);
criterion_main!(benches);
