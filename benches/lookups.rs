//! Measures lookups in index and catalog through a view: rows in runs, rows that no checkpoint has yet, and absent
//! rows.
//!
//! An absent row is what a push asks for first; filters of runs answer most of them without a page. Pages of runs stay
//! in memory up to 32 MiB: with a million blobs nearly every lookup of another row reads its page from the kernel's
//! cache. The digests are random, of a sample that is looked up again and again. A lookup of a link or a tag has the
//! lookup of the repository's name in it.

use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use tonnage_benches::store::content::{IMAGE_BLOBS, digest, images, mixed, push_images, tag};
use tonnage_benches::store::{BenchStore, sizes};
use tonnage_engine::Digest;

/// Most digests and tags that are looked up.
const SAMPLE: u64 = 50_000;
/// Images in the delta.
const DELTA_IMAGES: u64 = 1000;

/// Returns the numbers of blobs or tags of `range` that are looked up.
fn sample(range: Range<u64>) -> impl Iterator<Item = u64> {
    let count = range.end - range.start;
    (0..count.min(SAMPLE)).map(move |n| range.start + mixed(n) % count)
}

/// Measures lookups of the blobs of a range, in turn.
fn blobs(
    group: &mut BenchmarkGroup<'_, WallTime>,
    opened: &BenchStore,
    (layer, blobs): (&str, Range<u64>),
    stored: u64,
) {
    // Hashing a content takes longer than looking it up.
    let digests: Vec<Digest> = sample(blobs).map(digest).collect();
    let view = opened.store.view();
    let id = |row: &str| BenchmarkId::new(format!("{row}, {layer}"), stored);
    let mut next = digests.iter().cycle();
    group.bench_function(id("index row"), |bencher| {
        bencher.iter(|| {
            let digest = next.next().expect("there are some");
            black_box(opened.read(&view, |view| view.blob(digest)))
        });
    });
    group.bench_function(id("link row"), |bencher| {
        bencher.iter(|| {
            let digest = next.next().expect("there are some");
            black_box(opened.read(&view, |view| images(view)?.is_linked(digest)))
        });
    });
}

/// Measures lookups of all tags in runs.
fn tags(group: &mut BenchmarkGroup<'_, WallTime>, opened: &BenchStore, stored: u64) {
    let tags: Vec<String> = sample(0..stored / IMAGE_BLOBS).map(tag).collect();
    let view = opened.store.view();
    let mut next = tags.iter().cycle();
    group.bench_function(BenchmarkId::new("tag row, in runs", stored), |bencher| {
        bencher.iter(|| {
            let tag = next.next().expect("there are some");
            black_box(opened.read(&view, |view| images(view)?.tag(tag)))
        });
    });
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookups");
    group
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    for stored in sizes() {
        let opened = BenchStore::filled(stored);
        let fresh = 2 * stored..2 * stored + DELTA_IMAGES * IMAGE_BLOBS;
        blobs(&mut group, &opened, ("in runs", 0..stored), stored);
        tags(&mut group, &opened, stored);
        let absent = 2 * stored..3 * stored;
        blobs(&mut group, &opened, ("absent", absent), stored);
        let pushed = fresh.start / IMAGE_BLOBS..fresh.end / IMAGE_BLOBS;
        opened.runtime.block_on(push_images(&opened.store, pushed));
        blobs(&mut group, &opened, ("in the delta", fresh), stored);
        opened.close();
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
