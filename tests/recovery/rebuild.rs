//! Rebuilds of index and catalog from the journal alone, in bounded memory.

use std::sync::Arc;
use tonnage_tests::by_name::ByName as _;

use bytes::Bytes;
use parking_lot::Mutex;
use tonnage_engine::{
    Algorithm, Batch, Change, Digest, FinishedBlob, ManifestEntry, Options, Origin, Store,
};
use tonnage_tests::machine::{Image, Killed, Machine, Policy};

use super::check;

const TAGS: usize = 600;

/// Returns options under which a few hundred rows exceed the memory for the delta.
fn tight() -> Options {
    Options {
        delta_budget_bytes: 64 << 10,
        ..check::options()
    }
}

fn tag(number: usize) -> String {
    format!("a-tag-with-a-name-of-some-length-{number:04}")
}

fn set_tag(number: usize, digest: Digest) -> Change {
    let tag = tag(number);
    Change::SetTag { tag, digest }
}

/// Puts the manifest to which all tags point.
async fn put_manifest(store: &Store) -> Digest {
    let stored = store.put_small(Bytes::from_static(b"{}"), Algorithm::Sha256);
    let blob = stored.await.expect("stored");
    let entry = ManifestEntry {
        digest: blob.digest(),
        size: 2,
        children: vec![],
        subject: None,
        attributes: Bytes::new(),
    };
    let digest = entry.digest;
    commit(store, Some(blob), vec![Change::PutManifest(entry)]).await;
    digest
}

/// Returns a closed store with one manifest and many tags, without its runs and checkpoints.
fn store_without_caches(seed: u64) -> Image {
    let machine = Machine::new(seed, &check::empty_disk());
    machine.executor.block_on(async {
        let opened = Store::open(machine.env.clone(), &check::store_path(), tight()).await;
        let (store, _) = opened.expect("a new store opens");
        let digest = put_manifest(&store).await;
        for number in 0..TAGS {
            commit(&store, None, vec![set_tag(number, digest)]).await;
        }
        store.close().await.expect("a store closes");
    });
    machine.executor.settle();
    let mut image = machine.disk.live_image();
    image.files.retain(|path, _| {
        let name = path
            .strip_prefix(check::store_path())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        !name.starts_with("runs/") && !name.starts_with("checkpoint.")
    });
    image
}

async fn commit(store: &Store, staged: Option<FinishedBlob>, changes: Vec<Change>) {
    let repository = "r".to_owned();
    let (requires, origin) = (vec![], Origin::default());
    let batch = Batch {
        repository,
        create_repository: true,
        requires,
        staged: staged.into_iter().collect(),
        changes,
        origin,
    };
    store
        .commit(batch)
        .await
        .expect("a commit on a disk without faults");
}

fn base_files(image: &Image) -> usize {
    image
        .files
        .keys()
        .filter(|path| path.starts_with(check::store_path().join("runs")))
        .count()
}

/// Guards: a rebuild writes rows beyond the delta's budget to runs as it proceeds, also when it is stopped in between,
/// and ends with every tag.
#[test]
fn a_rebuild_takes_bounded_memory_and_loses_nothing() {
    let seed = 5;
    let image = store_without_caches(seed);
    assert_eq!(base_files(&image), 0);
    let whole = open_and_count(seed, &image, None);
    assert!(
        whole.base_files > 0,
        "rows went into runs before the store was open"
    );
    for stop_after in (1..whole.points).step_by(9) {
        let cut = open_and_count(seed, &image, Some(stop_after));
        open_and_count(seed, &cut.image, None);
    }
}

struct Opened {
    image: Image,
    base_files: usize,
    points: u64,
}

/// Opens an image, counts its tags unless it is stopped before, and drops the store without a close.
fn open_and_count(seed: u64, image: &Image, stop_after: Option<u64>) -> Opened {
    let machine = Machine::new(seed, image);
    if let Some(points) = stop_after {
        machine.disk.stop_after(points);
    }
    let mut files = 0;
    machine.executor.run_until_crash(async {
        let opened = Store::open(machine.env.clone(), &check::store_path(), tight()).await;
        let (store, report) = opened.expect("a store without caches opens");
        files = base_files(&machine.disk.live_image());
        assert!(stop_after.is_some() || report.replayed > 0);
        let tags = store
            .view()
            .read(|view| view.tags("r", None, 10_000))
            .await
            .unwrap();
        assert_eq!(
            tags.len(),
            TAGS,
            "seed {seed}, stopped after {stop_after:?}"
        );
    });
    Opened {
        image: machine.disk.durable_image(),
        base_files: files,
        points: machine.disk.points(),
    }
}

/// Returns a store with many tags, killed where the header of its newest journal file was written and not synced.
fn killed_with_an_unsynced_header(seed: u64) -> Killed {
    let machine = Machine::new(seed, &check::empty_disk());
    let found = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&found);
    machine.disk.watch(move |stop| {
        let killed = stop.killed();
        let (live, durable) = (killed.live_image(), &stop.images(&ENDS)[0].image);
        if has_header(&live, 3) && !has_header(durable, 3) {
            *kept.lock() = Some(killed);
        }
    });
    machine.executor.block_on(async {
        let path = check::store_path();
        let opened = Store::open(machine.env.clone(), &path, check::options()).await;
        let (store, _) = opened.expect("a new store opens");
        let digest = put_manifest(&store).await;
        // One frame, larger than a file, so the next one goes to the third.
        let tags = (0..TAGS).map(|number| set_tag(number, digest));
        commit(&store, None, tags.collect()).await;
        commit(&store, None, vec![set_tag(0, digest)]).await;
    });
    machine.disk.unwatch();
    let found = found.lock().take();
    found.expect("a stop with a header that is not synced")
}

/// The two extremes: only durable data, and all data.
const ENDS: Policy = Policy {
    prefixes: 0,
    single_losses: 0,
    pairs: 0,
    torn: 0,
    subsets: 0,
    seed: 0,
};

fn has_header(image: &Image, number: u64) -> bool {
    let name = format!("journal/{number:016x}.journal");
    let mut start = [0; 8];
    let file = image.files.get(&check::store_path().join(name));
    file.is_some_and(|file| file.read(0, &mut start) == 8 && start != [0; 8])
}

/// Guards: after a `kill -9` a rebuild may write a checkpoint that names a journal file whose header only the page
/// cache has. The header is made durable first; else a power cut would leave a checkpoint without its journal.
#[test]
fn a_rebuild_writes_no_checkpoint_over_what_only_the_page_cache_has() {
    let seed = 6;
    let machine = Machine::after_kill(seed, killed_with_an_unsynced_header(seed));
    let images = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&images);
    machine
        .disk
        .watch(move |stop| kept.lock().extend(stop.images(&Policy::sparse(seed))));
    machine.executor.block_on(async {
        let opened = Store::open(machine.env.clone(), &check::store_path(), tight()).await;
        drop(opened.expect("the store opens after a kill"));
    });
    machine.disk.unwatch();
    let images = std::mem::take(&mut *images.lock());
    assert!(images.iter().any(|crash| base_files(&crash.image) > 0));
    for crash in images {
        let machine = Machine::new(seed, &crash.image);
        let tags = machine.executor.block_on(async {
            let opened = Store::open(machine.env.clone(), &check::store_path(), tight()).await;
            let (store, _) = opened.unwrap_or_else(|error| panic!("{}: {error}", crash.label));
            store
                .view()
                .read(|view| view.tags("r", None, 10_000))
                .await
                .unwrap()
                .len()
        });
        assert_eq!(tags, TAGS, "{}", crash.label);
    }
}

/// Guards: a start does not use the size of a journal file permanently: the unused end of a finished file is cut off.
#[test]
fn a_finished_journal_file_keeps_no_unused_space() {
    let machine = Machine::new(3, &check::empty_disk());
    for _ in 0..2 {
        machine.executor.block_on(async {
            let opened = Store::open(machine.env.clone(), &check::store_path(), tight()).await;
            let (store, _) = opened.expect("the store opens");
            store.close().await.expect("the store closes");
        });
        machine.executor.settle();
    }
    let image = machine.disk.live_image();
    let size = |number: u64| {
        let name = format!("journal/{number:016x}.journal");
        image.files[&check::store_path().join(name)].len()
    };
    // Header, two marks, the frame that reserves segment ids, the close frame.
    assert_eq!(size(1), 5 * 4096);
    assert_eq!(size(2), tight().journal_file_bytes);
}

/// Guards: a journal file keeps room for the frame that closes it, so that a clean stop is possible after any number of
/// frames: as many as fit, one less, and one more.
#[test]
fn a_full_journal_file_can_be_closed() {
    for commits in 0..20 {
        let machine = Machine::new(commits, &check::empty_disk());
        machine.executor.block_on(async {
            let path = check::store_path();
            let opened = Store::open(machine.env.clone(), &path, check::options()).await;
            let (store, _) = opened.expect("a new store opens");
            let blob = store
                .put_small(Bytes::from_static(b"{}"), Algorithm::Sha256)
                .await;
            let blob = blob.expect("stored");
            let digest = blob.digest();
            commit(&store, Some(blob), vec![Change::Link(digest)]).await;
            for _ in 0..commits {
                commit(&store, None, vec![Change::Link(digest)]).await;
            }
            store.close().await.expect("a store closes");
        });
        machine.executor.settle();
        let report = check::fsck_image(1, &machine.disk.live_image()).expect("sound");
        assert!(report.clean, "after {commits} commits: {report:?}");
    }
}
