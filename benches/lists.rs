//! Measures pages of lists through a view: tags, links and manifests of a repository with all images of the store.
//!
//! A page starts at the first row, or after the row in the middle. The first has the lookup of the repository's name in
//! it, as has each other.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tonnage_benches::store::content::{IMAGE_BLOBS, images, tag};
use tonnage_benches::store::{BenchStore, sizes};

/// Rows of a page: what clients ask for, and the most that they get.
const PAGES: [usize; 2] = [100, 1000];

fn bench(criterion: &mut Criterion) {
    for blobs in sizes() {
        let opened = BenchStore::filled(blobs);
        let view = opened.store.view();
        let middle = tag(blobs / IMAGE_BLOBS / 2);
        let mut group = criterion.benchmark_group("lists");
        group
            .warm_up_time(Duration::from_secs(1))
            .measurement_time(Duration::from_secs(3));
        for page in PAGES {
            let id = |rows: &str| BenchmarkId::new(format!("{page} {rows}"), blobs);
            group.throughput(Throughput::Elements(page as u64));
            group.bench_function(id("tags"), |bencher| {
                bencher
                    .iter(|| black_box(opened.read(&view, |view| images(view)?.tags(None, page))));
            });
            // A store of 10 000 blobs has fewer than 1000 tags after the middle.
            let found = opened.read(&view, |view| images(view)?.tags(Some(&middle), page));
            group.throughput(Throughput::Elements(found.len() as u64));
            group.bench_function(id("tags after the middle"), |bencher| {
                bencher.iter(|| {
                    let after = Some(middle.as_str());
                    black_box(opened.read(&view, |view| images(view)?.tags(after, page)))
                });
            });
        }
        let page = PAGES[1];
        group.throughput(Throughput::Elements(page as u64));
        group.bench_function(
            BenchmarkId::new(format!("{page} links"), blobs),
            |bencher| {
                bencher
                    .iter(|| black_box(opened.read(&view, |view| images(view)?.links(None, page))));
            },
        );
        group.bench_function(
            BenchmarkId::new(format!("{page} manifests"), blobs),
            |bencher| {
                bencher.iter(|| {
                    black_box(opened.read(&view, |view| images(view)?.manifests(None, page)))
                });
            },
        );
        group.finish();
        drop(view);
        opened.close();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
