//! Measures opening a store: after a clean stop, after `kill -9` with 10 thousand blobs since the last checkpoint, and
//! from the journal alone.
//!
//! Each opening is that of a new copy of the same files, which are synced and in the kernel's cache. Its time has the
//! start of the threads for the disk, the superblock, replay, the new journal file with its syncs and, for the journal
//! alone, the runs that are written again. The journal alone is measured up to 100 thousand blobs; the program
//! `million` measures it with more.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use tonnage_benches::store::content::{IMAGE_BLOBS, push_images};
use tonnage_benches::store::kept::{copied, kept};
use tonnage_benches::store::{BenchStore, open, options, sizes};

/// Images since the last checkpoint.
const IMAGES: u64 = 1000;
/// Most blobs with which a store is opened from the journal alone.
const JOURNAL_BLOBS_MAX: u64 = 100_000;

/// Opens `iterations` copies of an image. Returns how long that took.
async fn openings(image: &Path, iterations: u64) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..iterations {
        let copy = copied(image);
        let began = Instant::now();
        let store = open(copy.path(), options()).await;
        took += began.elapsed();
        store.close().await.expect("a clean close");
    }
    took
}

/// Removes the index and the catalog of an image, which are rebuilt from the journal.
fn remove_runs(image: &Path) -> io::Result<()> {
    let runs = image.join("runs");
    fs::remove_dir_all(&runs)?;
    fs::create_dir(&runs)?;
    for entry in fs::read_dir(image)? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "checkpoint") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_millis(500));
    for blobs in sizes() {
        let opened = BenchStore::filled(blobs);
        let mut measure = |what: &str, image: &Path| {
            group.bench_function(BenchmarkId::new(what, blobs), |bencher| {
                bencher
                    .iter_custom(|iterations| opened.runtime.block_on(openings(image, iterations)));
            });
        };
        let clean = kept(blobs);
        measure("after a clean stop", clean.path());
        let first = blobs / IMAGE_BLOBS;
        opened
            .runtime
            .block_on(push_images(&opened.store, first..first + IMAGES));
        measure("after kill -9", opened.image().path());
        if blobs <= JOURNAL_BLOBS_MAX {
            remove_runs(clean.path()).expect("no runs");
            measure("from the journal alone", clean.path());
        }
        opened.close();
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
