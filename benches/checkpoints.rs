//! Measures a checkpoint of a delta of 10 thousand blobs with links, a thousand manifests and tags, on stores of
//! several sizes.
//!
//! Its time has writing and syncing one run and the checkpoint's file, and dropping the delta. It does not grow with
//! the store; merges, which do, run in the background meanwhile, and may take a processor. The program `million`
//! measures checkpoints beside commits.

use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use tonnage_benches::store::content::{IMAGE_BLOBS, push_images};
use tonnage_benches::store::{BenchStore, sizes};

/// Images in the delta.
const IMAGES: u64 = 1000;

/// Writes `iterations` checkpoints, each after images from `next` on were pushed. Returns how long they took.
async fn checkpoints(opened: &BenchStore, next: &mut u64, iterations: u64) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..iterations {
        push_images(&opened.store, *next..*next + IMAGES).await;
        *next += IMAGES;
        let began = Instant::now();
        let report = opened.store.checkpoint().await.expect("a checkpoint");
        took += began.elapsed();
        assert!(report.bytes_written > 0, "there was a delta");
    }
    took
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checkpoint");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_millis(500));
    group.throughput(Throughput::Elements(IMAGES * IMAGE_BLOBS));
    for blobs in sizes() {
        let opened = BenchStore::filled(blobs);
        let mut next = blobs / IMAGE_BLOBS;
        group.bench_function(BenchmarkId::from_parameter(blobs), |bencher| {
            bencher.iter_custom(|iterations| {
                opened
                    .runtime
                    .block_on(checkpoints(&opened, &mut next, iterations))
            });
        });
        opened.close();
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
