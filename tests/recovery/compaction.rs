//! Compaction on the simulated machine: dead bytes go, live ones stay as they are, wherever they are moved.

use std::time::Duration;

use bytes::Bytes;
use tonnage_engine::{
    Algorithm, Change, CollectionReport, CollectionRequest, Digest, JobControl, JobKind, Options,
    Store,
};
use tonnage_tests::machine::Machine;
use tonnage_tests::whole_blobs::{ByDigest as _, InOnePiece as _};

use super::check;
use super::collection::{A, GRACE, automatic, commit, delete, is_stored, on_a_store, open, put};
use super::damage::flipped;

/// Options under which nothing happens by itself, and all of these blobs go into shared segments.
fn manual() -> Options {
    Options {
        collection_manual: true,
        spill_threshold_bytes: 512 << 10,
        ..automatic()
    }
}

/// Content that differs in every chunk.
fn content(salt: u8, length: usize) -> Bytes {
    let bytes = (0..length).map(|at| salt.wrapping_add((at / 1021) as u8) ^ (at as u8));
    Bytes::from_iter(bytes)
}

async fn push_bytes(store: &Store, content: Bytes) -> Digest {
    let blob = store.put_small(content, Algorithm::Sha256).await;
    let blob = blob.expect("stored");
    let digest = blob.digest();
    commit(store, A, vec![blob], vec![Change::Link(digest)]).await;
    digest
}

async fn collect_fully(store: &Store) -> CollectionReport {
    let request = CollectionRequest {
        full: true,
        ..CollectionRequest::default()
    };
    store.collect(request).await.expect("collected")
}

async fn read(store: &Store, digest: &Digest) -> Vec<u8> {
    let reader = store.open_blob(digest).await.expect("readable");
    let reader = reader.expect("stored");
    reader.read_whole(1 << 30).await.expect("intact")
}

/// Returns the bytes of all segment files.
fn segment_bytes(machine: &Machine) -> u64 {
    let image = machine.disk.live_image();
    let segments = check::store_path().join("segments");
    let files = image.files.iter();
    let sizes = files.filter(|(path, _)| path.starts_with(&segments));
    sizes.map(|(_, bytes)| bytes.len()).sum()
}

/// Guards: a full collection leaves hardly any dead bytes, also in segments that were being written, and every live
/// byte. A second one has nothing to do.
#[test]
fn a_full_collection_leaves_little_more_than_live_bytes() {
    on_a_store(&manual(), async |machine, store| {
        let mut kept = Vec::new();
        for salt in 0..40 {
            let bytes = content(salt, 1000 + 7000 * usize::from(salt));
            let digest = push_bytes(store, bytes.clone()).await;
            if salt % 3 == 0 {
                kept.push((digest, bytes));
            }
        }
        let children: Vec<_> = kept.iter().map(|(digest, _)| *digest).collect();
        put(store, A, 200, &children).await;
        machine.env.clock.sleep(2 * GRACE).await;
        let report = collect_fully(store).await;
        assert_eq!(report.blobs, 26, "{report:?}");
        assert!(report.compaction.segments >= 2, "{report:?}");
        let live: usize = kept.iter().map(|(_, bytes)| bytes.len()).sum();
        let (live, used) = (live as u64, segment_bytes(machine));
        assert!(used <= live + live / 50 + 3 * 4096, "{used} for {live}");
        for (digest, bytes) in &kept {
            assert_eq!(read(store, digest).await, *bytes);
        }
        let again = collect_fully(store).await;
        assert_eq!(again.compaction.segments, 0, "{again:?}");
    });
}

/// Guards: a reader keeps its bytes while its blob is moved twice; a view from before finds the blob where it is now.
/// Nothing is marked as damaged.
#[test]
fn a_slow_reader_survives_two_compactions() {
    on_a_store(&manual(), async |machine, store| {
        let bytes = content(1, 500_000);
        let digest = push_bytes(store, bytes.clone()).await;
        put(store, A, 2, &[digest]).await;
        let view = store.view();
        let found = view.read(|view| view.blob(&digest)).await;
        let found = found.expect("readable").expect("stored");
        let reader = store.open_blob(&digest).await.expect("readable");
        let mut stream = reader.expect("stored").read(0..500_000);
        let mut seen = stream
            .next()
            .await
            .expect("intact")
            .expect("a piece")
            .to_vec();
        push_bytes(store, content(10, 300_000)).await;
        let later = push_bytes(store, content(11, 300_000)).await;
        let manifest = put(store, A, 12, &[later]).await;
        for _ in 0..2 {
            machine.env.clock.sleep(2 * GRACE).await;
            let report = collect_fully(store).await;
            assert!(report.compaction.blobs > 0, "{report:?}");
            if is_stored(store, &manifest).await {
                delete(store, A, manifest).await;
            }
        }
        while let Some(piece) = stream.next().await.expect("intact") {
            seen.extend_from_slice(&piece);
        }
        assert_eq!(seen, bytes);
        // The last reader of the first segment, which is unlinked now.
        drop(stream);
        machine.env.clock.sleep(GRACE).await;
        let client = tonnage_engine::vocabulary::ClientId::default();
        let reader = store.open_found(&digest, &found, client).await;
        let reader = reader.expect("readable").expect("stored");
        assert_eq!(reader.read_whole(1 << 20).await.expect("intact"), bytes);
        let now = store.view().read(|view| view.blob(&digest)).await;
        assert_ne!(now.expect("readable").expect("stored").extent, found.extent);
        assert!(!store.is_damaged(&digest).await.expect("known"));
    });
}

/// Guards: a record that rotted is never copied, so it gets no fresh checksum; it is marked, and its segment stays for
/// whoever wants to look at it. A push heals it, and then the segment goes.
#[test]
fn rot_is_not_moved() {
    let machine = Machine::new(1, &check::empty_disk());
    let (image, rotten, intact, garbage) = machine.executor.block_on(async {
        let store = open(&machine, manual()).await;
        let rotten = push_bytes(&store, content(1, 200_000)).await;
        let intact = push_bytes(&store, content(2, 200_000)).await;
        let garbage = push_bytes(&store, content(3, 200_000)).await;
        put(&store, A, 4, &[rotten, intact]).await;
        let found = store.view().read(|view| view.blob(&rotten)).await;
        let extent = found.expect("readable").expect("stored").extent;
        store.close().await.expect("the store closes");
        let image = machine.disk.live_image();
        let segment = format!("segments/{}.segment", extent.segment);
        let path = check::store_path().join(segment);
        let image = flipped(&image, &path, extent.offset + 70_000);
        (image, rotten, intact, garbage)
    });
    let machine = Machine::new(2, &image);
    machine.executor.block_on(async {
        let store = open(&machine, manual()).await;
        machine.env.clock.sleep(2 * GRACE).await;
        let report = collect_fully(&store).await;
        assert_eq!((report.blobs, report.compaction.segments), (1, 0));
        assert!(!is_stored(&store, &garbage).await);
        assert!(store.is_damaged(&rotten).await.expect("known"));
        assert_eq!(read(&store, &intact).await, content(2, 200_000));
        assert!(segment_bytes(&machine) > 600_000, "its segment stays");
        push_bytes(&store, content(1, 200_000)).await;
        assert_eq!(read(&store, &rotten).await, content(1, 200_000));
        collect_fully(&store).await;
        assert!(segment_bytes(&machine) < 450_000, "its segment is gone");
        store.close().await.expect("the store closes");
    });
}

/// Guards: the space of a segment that is being written comes back by itself once all in it is dead, although nothing
/// else is pushed.
#[test]
fn an_idle_store_returns_the_space_of_its_active_segment() {
    let options = Options {
        collection_manual: false,
        ..manual()
    };
    on_a_store(&options, async |machine, store| {
        for salt in 0..5 {
            push_bytes(store, content(salt, 300_000)).await;
        }
        assert!(segment_bytes(machine) > 1_500_000);
        machine.env.clock.sleep(2 * GRACE).await;
        assert_eq!(segment_bytes(machine), 0);
    });
}

/// Guards: the store compacts by itself, once a quarter of a segment is dead, and at its pace.
#[test]
fn the_store_compacts_by_itself() {
    let options = Options {
        collection_manual: false,
        shared_segment_bytes: 4 << 20,
        ..manual()
    };
    on_a_store(&options, async |machine, store| {
        let mut kept = Vec::new();
        for salt in 0..30 {
            let digest = push_bytes(store, content(salt, 300_000)).await;
            if salt % 2 == 0 {
                kept.push(digest);
            }
        }
        put(store, A, 200, &kept).await;
        let before = segment_bytes(machine);
        machine.env.clock.sleep(2 * GRACE).await;
        let after = segment_bytes(machine);
        assert!(after * 3 < before * 2, "{before} before, {after} after");
        for (salt, digest) in (0..30).step_by(2).zip(&kept) {
            assert_eq!(read(store, digest).await, content(salt, 300_000));
        }
        let compacted = store.compaction_totals();
        assert!(compacted.segments >= 2, "{compacted:?}");
    });
}

/// Guards: a compaction of the store that is paused ends, stays listed as paused, and none begins until it is resumed.
/// Meanwhile an operator's runs at once. Afterwards the store compacts by itself again, also after the job that
/// continues was cancelled while it was paused.
#[test]
fn a_pause_outlives_the_compaction_and_holds_nothing() {
    let options = Options {
        collection_manual: false,
        shared_segment_bytes: 4 << 20,
        compaction_rate_bytes: 32 << 10,
        ..manual()
    };
    on_a_store(&options, async |machine, store| {
        let clock = &machine.env.clock;
        let pause = async |first: u8| {
            let mut kept = Vec::new();
            for salt in first..first + 20 {
                let digest = push_bytes(store, content(salt, 300_000)).await;
                if salt % 2 == 0 {
                    kept.push(digest);
                }
            }
            put(store, A, 200 + first, &kept).await;
            let job = loop {
                clock.sleep(Duration::from_secs(1)).await;
                let jobs = store.jobs();
                if let Some(job) = jobs.iter().find(|job| job.kind == JobKind::Compaction) {
                    assert!(job.total > 0);
                    break job.id;
                }
            };
            assert!(store.control_job(job, JobControl::Pause));
            // Longer than the step takes that it is in.
            clock.sleep(GRACE).await;
            job
        };
        let job = pause(0).await;
        let (before, moved) = (
            segment_bytes(machine),
            store.compaction_totals().moved_bytes,
        );
        clock.sleep(10 * GRACE).await;
        let jobs = store.jobs();
        assert!(
            jobs.len() == 1 && jobs[0].id == job && jobs[0].paused,
            "{jobs:?}"
        );
        assert_eq!(store.compaction_totals().moved_bytes, moved);
        assert_eq!(segment_bytes(machine), before);
        let report = collect_fully(store).await;
        assert!(report.compaction.segments > 0, "{report:?}");
        let after = segment_bytes(machine);
        assert!(after * 3 < before * 2, "{before} before, {after} after");
        assert!(store.jobs()[0].paused);
        assert!(store.control_job(job, JobControl::Resume));
        clock.sleep(GRACE).await;
        assert!(store.jobs().is_empty());

        let job = pause(20).await;
        assert!(store.control_job(job, JobControl::Cancel));
        clock.sleep(GRACE).await;
        assert!(store.jobs().is_empty());
        let before = segment_bytes(machine);
        clock.sleep(20 * GRACE).await;
        assert!(segment_bytes(machine) < before);
    });
}
