//! Measures commits: one after the other, and many at once, which share frames and syncs of the journal (group commit).
//!
//! A commit moves a tag, and stages no blob. In its time are the check of the manifest, the rows, the journal's frame
//! and its sync, which is most of it. In groups each commit moves another tag. The rate of a group is in commits.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::task::JoinSet;
use tonnage_benches::store::content::{IMAGE_BLOBS, batch, manifest, mixed};
use tonnage_benches::store::{BenchStore, sizes};
use tonnage_engine::{Change, Store};

/// Numbers of commits at once.
const GROUPS: [u64; 3] = [1, 16, 64];

/// Moves `group` tags at the same time, `iterations` times. Returns how long that took.
async fn move_tags(store: &Store, images: u64, group: u64, iterations: u64) -> Duration {
    let began = Instant::now();
    for iteration in 0..iterations {
        let mut commits = JoinSet::new();
        for member in 0..group {
            let store = store.clone();
            let change = Change::SetTag {
                tag: format!("moving-{member}"),
                digest: manifest(mixed(iteration * group + member) % images),
            };
            commits.spawn(async move { store.commit(batch(Vec::new(), vec![change])).await });
        }
        for committed in commits.join_all().await {
            committed.expect("a commit");
        }
    }
    began.elapsed()
}

fn bench(criterion: &mut Criterion) {
    let mut criterion_group = criterion.benchmark_group("commits");
    criterion_group
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    for blobs in sizes() {
        let opened = BenchStore::filled(blobs);
        for group in GROUPS {
            let id = BenchmarkId::new(format!("{group} at once"), blobs);
            criterion_group.throughput(Throughput::Elements(group));
            criterion_group.bench_function(id, |bencher| {
                bencher.iter_custom(|iterations| {
                    let images = blobs / IMAGE_BLOBS;
                    let moved = move_tags(&opened.store, images, group, iterations);
                    opened.runtime.block_on(moved)
                });
            });
        }
        opened.close();
    }
    criterion_group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
