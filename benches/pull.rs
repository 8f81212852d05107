//! Measures a pull of a stored blob of 1 GiB from memory, within one process and without a socket: the engine's reader,
//! window by window, each dropped before the next, beside what it consists of.
//!
//! "read" is a loop of `pread` of the same bytes into one buffer: of 256 KiB, which stays in the processor's cache, and
//! of 1 MiB. "read and check" verifies the chunks of each buffer too. What the engine takes beyond that of 1 MiB is its
//! windows, its memory budget and its checksum table. The blob is read once before, so it is in the kernel's cache.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use tonnage_benches::store::BenchStore;
use tonnage_benches::store::content::{batch, random, upload};
use tonnage_engine::format::checksum::{ChunkChecksums, check_chunks};
use tonnage_engine::format::record::RecordPlaces;
use tonnage_engine::limits::CHUNK_BYTES;
use tonnage_engine::{Algorithm, BlobReader, Change, ClientId, Digest, Store};

/// Bytes of the blob.
const LENGTH: usize = 1 << 30;
/// Bytes that are read at once.
const WINDOWS: [usize; 2] = [256 << 10, 1 << 20];

/// A stored blob, and where its bytes are.
struct Stored {
    reader: BlobReader,
    file: File,
    payload: u64,
    table: Vec<u32>,
}

/// Stores the blob.
async fn store_blob(store: &Store) -> Stored {
    let content = Bytes::from(random(LENGTH));
    let digest = Digest::of(Algorithm::Sha256, &content);
    let blob = upload(store, &content, digest).await;
    let commit = batch(vec![blob], vec![Change::Link(digest)]);
    store.commit(commit).await.expect("a commit");
    let view = store.view();
    let found = view.read(|view| view.blob(&digest)).await;
    let found = found.expect("a row").expect("the blob");
    let reader = store.open_found(&digest, &found, ClientId::default()).await;
    let mut checksums = ChunkChecksums::default();
    checksums.update(&content);
    Stored {
        reader: reader.expect("a reader").expect("the blob"),
        file: File::open(largest_segment(store)).expect("the segment"),
        payload: RecordPlaces::of(&found.extent).expect("a place").payload,
        table: checksums.table(),
    }
}

fn largest_segment(store: &Store) -> PathBuf {
    let segments = fs::read_dir(store.path().join("segments")).expect("segments");
    let paths = segments.map(|entry| entry.expect("a segment").path());
    let largest = paths.max_by_key(|path| path.metadata().map_or(0, |file| file.len()));
    largest.expect("a segment")
}

impl Stored {
    /// Reads the blob as the engine does for a client.
    async fn stream(&self) {
        let mut stream = self.reader.read(0..LENGTH as u64);
        let mut bytes = 0;
        while let Some(piece) = stream.next().await.expect("intact bytes") {
            bytes += black_box(piece).len();
        }
        assert_eq!(bytes, LENGTH);
    }

    /// Reads the blob in a loop, and verifies it if asked to.
    fn read(&self, buffer: &mut [u8], checks: bool) {
        let mut at = 0;
        while at < LENGTH {
            let place = self.payload + at as u64;
            self.file.read_exact_at(buffer, place).expect("a read");
            if checks {
                let table = &self.table[at / CHUNK_BYTES..];
                check_chunks(black_box(buffer), table).expect("intact chunks");
            }
            at += buffer.len();
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let opened = BenchStore::empty();
    let stored = opened.runtime.block_on(store_blob(&opened.store));
    opened.runtime.block_on(stored.stream());
    let mut group = criterion.benchmark_group("pull");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(LENGTH as u64));
    group.bench_function("the engine", |bencher| {
        bencher.iter(|| opened.runtime.block_on(stored.stream()));
    });
    for window in WINDOWS {
        let mut buffer = vec![0; window];
        group.bench_function(BenchmarkId::new("read", window), |bencher| {
            bencher.iter(|| stored.read(&mut buffer, false));
        });
        group.bench_function(BenchmarkId::new("read and check", window), |bencher| {
            bencher.iter(|| stored.read(&mut buffer, true));
        });
    }
    group.finish();
    drop(stored);
    opened.close();
}

criterion_group!(benches, bench);
criterion_main!(benches);
