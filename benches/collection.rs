//! Measures the removal of a thousand blobs whose only manifest was deleted and whose grace is over, from stores of
//! several sizes.
//!
//! In the time are the lookups of each suspect, the commits that remove them and the syncs. The cost does not grow with
//! the store. Space is returned by compaction, which does not run here; the program `collection` measures it.

use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use tonnage_benches::store::content::{IMAGE_BLOBS, batch, manifest, push_images};
use tonnage_benches::store::{BenchStore, options, sizes};
use tonnage_engine::{Change, CollectionRequest, Options, Store};

/// Images that are removed.
const IMAGES: u64 = 100;
/// Time for which nothing is collected after its last reference was removed.
const GRACE: Duration = Duration::from_millis(100);

/// Pushes images from `first` on and deletes their manifests, and waits until grace is over.
async fn prepare(store: &Store, first: u64) {
    push_images(store, first..first + IMAGES).await;
    for number in first..first + IMAGES {
        let changes = vec![Change::DeleteManifest(manifest(number))];
        store
            .commit(batch(Vec::new(), changes))
            .await
            .expect("a commit");
    }
    // The first look starts grace; a dry run shows whether it is over.
    let request = CollectionRequest {
        dry_run: true,
        ..CollectionRequest::default()
    };
    while store.collect(request).await.expect("a dry run").blobs < IMAGES * IMAGE_BLOBS {
        tokio::time::sleep(GRACE / 10).await;
    }
}

/// Collects `iterations` times. Returns how long that took.
async fn collections(store: &Store, next: &mut u64, iterations: u64) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..iterations {
        prepare(store, *next).await;
        *next += IMAGES;
        let began = Instant::now();
        let report = store.collect(CollectionRequest::default()).await;
        took += began.elapsed();
        assert_eq!(report.expect("a collection").blobs, IMAGES * IMAGE_BLOBS);
    }
    took
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("collection");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_millis(500));
    group.throughput(Throughput::Elements(IMAGES * IMAGE_BLOBS));
    for blobs in sizes() {
        let options = Options {
            collection_grace: GRACE,
            ..options()
        };
        let opened = BenchStore::filled_with(blobs, options);
        let mut next = blobs / IMAGE_BLOBS;
        group.bench_function(BenchmarkId::from_parameter(blobs), |bencher| {
            bencher.iter_custom(|iterations| {
                opened
                    .runtime
                    .block_on(collections(&opened.store, &mut next, iterations))
            });
        });
        opened.close();
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
