//! Checkpoints and merges: stops and errors at every write and sync, and the pages that filters spare.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tonnage_engine::format::checkpoint::{CheckpointRecord, RunRef};
use tonnage_engine::{
    Algorithm, Change, Digest, Error, FinishedBlob, ManifestEntry, OpenReport, Store,
};
use tonnage_tests::batch_of;
use tonnage_tests::by_name::ByName as _;
use tonnage_tests::machine::{ENOSPC, Fault, Image, Machine, Noise, OpKind, Outcome, Policy};
use tonnage_tests::model::generate::options;
use tonnage_tests::model::recover::{empty_disk, fsck_image, store_path};

const REPOSITORY: &str = "r";
/// The fourth checkpoint makes a merge due.
const ROUNDS: usize = 4;

async fn open(machine: &Machine) -> (Store, OpenReport) {
    let opened = Store::open(machine.env.clone(), &store_path(), options()).await;
    opened.expect("the store opens")
}

async fn commit(store: &Store, changes: Vec<Change>) -> Result<(), Error> {
    push(store, vec![], changes).await
}

async fn push(store: &Store, staged: Vec<FinishedBlob>, changes: Vec<Change>) -> Result<(), Error> {
    let batch = batch_of(REPOSITORY, staged, changes);
    store.commit(batch).await.map(drop)
}

/// Pushes the two manifests to which tags point.
async fn manifests(store: &Store) -> [Digest; 2] {
    let mut digests = Vec::new();
    for content in ["one", "other"] {
        let blob = store.put_small(content.into(), Algorithm::Sha256);
        let blob = blob.await.expect("a disk without faults");
        let entry = ManifestEntry {
            digest: blob.digest(),
            size: content.len() as u64,
            children: vec![],
            subject: None,
            attributes: bytes::Bytes::new(),
        };
        digests.push(blob.digest());
        let changes = vec![Change::PutManifest(entry)];
        let pushed = push(store, vec![blob], changes).await;
        pushed.expect("a disk without faults");
    }
    [digests[0], digests[1]]
}

type Tags = BTreeMap<String, Digest>;

/// Returns the tags that round `round` sets, some new, some replaced, and one that it deletes.
fn round(round: usize, digests: [Digest; 2]) -> (Tags, String) {
    let name = |n: usize| format!("tag-{:04}", (n * 37 + round * 20) % 90);
    let set = (0..40).map(|n| (name(n), digests[round % 2])).collect();
    (set, name(round * 7))
}

async fn take_round(store: &Store, number: usize, digests: [Digest; 2]) -> Result<(), Error> {
    let (set, deleted) = round(number, digests);
    let set = set
        .into_iter()
        .map(|(tag, digest)| Change::SetTag { tag, digest });
    commit(store, set.collect()).await?;
    commit(store, vec![Change::DeleteTag(deleted)]).await
}

/// Returns all tags at the end of `rounds` rounds.
fn expected(rounds: usize, digests: [Digest; 2]) -> Tags {
    let mut tags = Tags::new();
    for number in 1..=rounds {
        let (set, deleted) = round(number, digests);
        tags.extend(set);
        tags.remove(&deleted);
    }
    tags
}

async fn tags(store: &Store) -> Tags {
    let view = store.view();
    let found = view.read(|view| view.tags(REPOSITORY, None, 1000)).await;
    let found = found.expect("rows are readable").into_iter();
    found.map(|found| (found.tag, found.digest)).collect()
}

/// Waits until tasks of the store are done: the simulated clock does not advance while there is work to do.
async fn settle(machine: &Machine) {
    machine.env.clock.sleep(Duration::from_secs(1)).await;
}

/// Returns the run files that the two newest checkpoints with all their files name.
fn named(image: &Image) -> BTreeSet<PathBuf> {
    let slots = (0..3).map(|slot| store_path().join(format!("checkpoint.{slot}")));
    let content = slots.filter_map(|slot| Some(image.files.get(&slot)?.to_vec()));
    let records = content.filter_map(|bytes| CheckpointRecord::decode(&bytes).ok());
    let path = |id| store_path().join(format!("runs/{id:016x}.run"));
    let is_there = |run: &RunRef| image.files.contains_key(&path(run.id));
    let mut whole: Vec<_> = records
        .filter(|record| record.runs.iter().all(is_there))
        .collect();
    whole.sort_by_key(|record| std::cmp::Reverse(record.sequence));
    let runs = whole.iter().take(2).flat_map(|record| &record.runs);
    runs.map(|run| path(run.id)).collect()
}

fn run_files(image: &Image) -> BTreeSet<PathBuf> {
    let runs = store_path().join("runs");
    let files = image.files.keys().filter(|path| path.starts_with(&runs));
    files.cloned().collect()
}

/// The progress of a workload: rounds whose changes are durable, the LSN of the last finished checkpoint, and that of
/// the one begun.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    rounds: usize,
    ended: u64,
    begun: u64,
}

/// Runs rounds of changes with a checkpoint each, and the merge that the last one makes due.
async fn workload(machine: &Machine, store: &Store, digests: [Digest; 2], at: &Cell<Progress>) {
    for number in 1..=ROUNDS {
        take_round(store, number, digests)
            .await
            .expect("a disk without faults");
        let begun = store.view().lsn().0;
        let rounds = number;
        at.set(Progress {
            rounds,
            begun,
            ..at.get()
        });
        store.checkpoint().await.expect("a disk without faults");
        at.set(Progress {
            ended: begun,
            ..at.get()
        });
        settle(machine).await;
    }
    let stats = store.stats().await.expect("a disk without faults");
    assert!(stats.runs.merged_bytes > 0, "no merge was due: {stats:?}");
}

/// Opens the image of a stop, checks it, and continues with one more checkpoint.
fn check_image(image: &Image, at: Progress, digests: [Digest; 2], label: &str) {
    let machine = Machine::new(1, image);
    machine.executor.block_on(async {
        let (store, report) = open(&machine).await;
        let found = report.checkpoint.map_or(0, |lsn| lsn.0);
        assert!(
            found == at.ended || found == at.begun,
            "{label}: the checkpoint of {found}, {at:?}; passed over: {:?}",
            report.checkpoints_unusable
        );
        let there = tags(&store).await;
        let after = expected(at.rounds, digests);
        if there != after {
            // The next round may have been in progress: whole transactions of it may be present.
            let (set, _) = round(at.rounds + 1, digests);
            let mut begun = after;
            begun.extend(set);
            let ended = expected(at.rounds + 1, digests);
            assert!(there == begun || there == ended, "{label}: {there:?}");
        }
        take_round(&store, ROUNDS + 1, digests)
            .await
            .expect("a disk without faults");
        store.checkpoint().await.expect("a disk without faults");
        settle(&machine).await;
        let live = machine.disk.live_image();
        assert_eq!(run_files(&live), named(&live), "{label}");
        let there = tags(&store).await;
        store.close().await.expect("a disk without faults");
        drop(store);
        let (store, _) = open(&machine).await;
        assert_eq!(tags(&store).await, there, "{label}");
        store.close().await.expect("a disk without faults");
    });
    machine.executor.settle();
    let report = fsck_image(1, &machine.disk.live_image()).expect("a store");
    assert!(report.is_sound(), "{label}: {:?}", report.findings);
}

/// Guards: after a stop at any write or sync of a checkpoint or merge, an open finds the newest finished checkpoint, or
/// the one in progress, with exactly its rows. The next checkpoint succeeds and leaves only files that are named.
#[test]
fn a_stop_anywhere_leaves_the_newest_finished_checkpoint() {
    let seed = 11;
    println!("seed {seed}");
    let run = |stop_after: Option<u64>| {
        let machine = Machine::new(seed, &empty_disk());
        let (from, at) = (Cell::new(0), Cell::new(Progress::default()));
        let digests = Cell::new(None);
        if let Some(point) = stop_after {
            machine.disk.stop_after(point);
        }
        let outcome = machine.executor.run_until_crash(async {
            let (store, _) = open(&machine).await;
            let both = manifests(&store).await;
            digests.set(Some(both));
            from.set(machine.disk.points());
            workload(&machine, &store, both, &at).await;
        });
        (machine, outcome, from.get(), at.get(), digests.get())
    };
    let (machine, outcome, from, ..) = run(None);
    assert!(matches!(outcome, Outcome::Finished(())));
    let points = machine.disk.points();
    assert!(points - from > 30, "{} crash points", points - from);
    let mut images = 0;
    for point in from..points {
        let (machine, outcome, _, at, digests) = run(Some(point));
        assert!(matches!(outcome, Outcome::Crashed), "{point} of {points}");
        let digests = digests.expect("the workload had begun");
        for crash in machine.disk.crash_images(&Policy::coarse(seed)) {
            images += 1;
            let label = format!("seed {seed}, point {point}, {}", crash.label);
            check_image(&crash.image, at, digests, &label);
        }
    }
    println!("{} points, {images} images", points - from);
}

/// Runs checkpoints without `fault`, one with its merge that meets it, and one more. Returns false if no operation met
/// the fault.
async fn fails_alone(machine: &Machine, fault: &Fault) -> bool {
    let (store, _) = open(machine).await;
    let digests = manifests(&store).await;
    for number in 1..ROUNDS {
        take_round(&store, number, digests)
            .await
            .expect("a disk without faults");
        store.checkpoint().await.expect("a disk without faults");
    }
    take_round(&store, ROUNDS, digests)
        .await
        .expect("a disk without faults");
    settle(machine).await;
    let before = machine.disk.log().len();
    machine.disk.add_fault(fault.clone());
    let attempt = store.checkpoint().await;
    settle(machine).await;
    machine.disk.clear_faults();
    let log = machine.disk.log();
    let met = log[before..]
        .iter()
        .any(|done| done.errno == Some(fault.errno));
    if let Err(error) = &attempt {
        let is_full = fault.errno == ENOSPC;
        assert_eq!(error.is_no_space(), is_full, "{fault:?}: {error}");
    }
    let live = machine.disk.live_image();
    assert_eq!(run_files(&live), named(&live), "{fault:?}");
    let there = expected(ROUNDS, digests);
    assert_eq!(tags(&store).await, there, "{fault:?}");
    let copy = Machine::new(1, &live);
    copy.disk.set_noise(Noise::NONE);
    copy.executor.block_on(async {
        let (store, report) = open(&copy).await;
        assert!(report.checkpoint.is_some(), "{fault:?}");
        assert_eq!(tags(&store).await, there, "{fault:?}");
    });
    if store.poisoned().is_some() {
        return met;
    }
    take_round(&store, ROUNDS + 1, digests)
        .await
        .expect("a disk without faults");
    store.checkpoint().await.expect("a disk without faults");
    settle(machine).await;
    assert_eq!(
        tags(&store).await,
        expected(ROUNDS + 1, digests),
        "{fault:?}"
    );
    let live = machine.disk.live_image();
    assert_eq!(run_files(&live), named(&live), "{fault:?}");
    met
}

/// Guards: an error at any write or sync fails only that checkpoint or merge. The checkpoint before is still found, the
/// rows in memory are intact, and the next attempt succeeds and leaves no unnamed file.
#[test]
fn an_error_anywhere_fails_one_checkpoint_alone() {
    let kinds = [
        (OpKind::Write, ENOSPC),
        (OpKind::SyncData, 5),
        (OpKind::SyncDir, 5),
        (OpKind::Create, ENOSPC),
        (OpKind::SetLen, 5),
        (OpKind::Read, 5),
        (OpKind::List, 5),
    ];
    let mut failures = 0;
    for (kind, errno) in kinds {
        for n in 1.. {
            let machine = Machine::new(3, &empty_disk());
            machine.disk.set_noise(Noise::NONE);
            let fault = Fault::nth(kind, n).with_errno(errno);
            if !machine.executor.block_on(fails_alone(&machine, &fault)) {
                break;
            }
            failures += 1;
        }
    }
    assert!(failures > 10, "{failures} failures");
}

/// Returns a digest that the store does not have.
fn absent(number: u64) -> Digest {
    Digest::of(Algorithm::Sha256, &number.to_le_bytes())
}

/// Guards: filters keep 99.9 % of lookups of absent rows from reading pages, and lose no existing row. Scans of an
/// absent group read no page either.
#[test]
fn absent_lookups_read_no_pages() {
    let machine = Machine::new(5, &empty_disk());
    machine.disk.set_noise(Noise::NONE);
    machine.executor.block_on(async {
        let (store, _) = open(&machine).await;
        let mut stored = Vec::new();
        for number in 0..1000_u64 {
            let content = format!("blob {number}");
            let blob = store.put_small(content.into(), Algorithm::Sha256).await;
            let blob = blob.expect("a disk without faults");
            stored.push(blob.digest());
            let pushed = push(&store, vec![blob], vec![]).await;
            pushed.expect("a disk without faults");
        }
        let entry = ManifestEntry {
            digest: stored[0],
            size: 6,
            children: stored[1..].to_vec(),
            subject: None,
            attributes: bytes::Bytes::new(),
        };
        commit(&store, vec![Change::PutManifest(entry)])
            .await
            .expect("a disk without faults");
        store.close().await.expect("a disk without faults");
        drop(store);
        let (store, _) = open(&machine).await;
        // Every page that is not in the store's memory is read from the disk, and counted.
        machine.disk.set_noise(Noise {
            would_block: 100,
            ..Noise::NONE
        });
        let view = store.view();
        let reads = || {
            let log = machine.disk.log();
            let pages = log
                .iter()
                .filter(|done| done.path.extension().is_some_and(|end| end == "run"));
            pages.filter(|done| done.kind == OpKind::Read).count()
        };
        let opened = reads();
        for number in 0..20_000 {
            let digest = absent(number);
            let found = view.read(|view| Ok((view.blob(&digest)?, view.referenced(&digest)?)));
            assert_eq!(found.await.expect("a disk without faults"), (None, false));
        }
        let read = reads() - opened;
        assert!(read < 40, "{read} of 40,000 absent lookups read a page");
        let before = reads();
        for digest in &stored {
            let found = view.read(|view| view.blob(digest)).await;
            assert!(found.expect("a disk without faults").is_some(), "{digest}");
        }
        assert!(
            view.read(|view| view.referenced(&stored[1]))
                .await
                .expect("a disk without faults")
        );
        assert!(reads() - before > 5, "no page read was counted");
        store.close().await.expect("a disk without faults");
    });
}

/// Guards: an open checks all runs before it returns, but after a clean stop, when the open store does. A later kill of
/// that store counts as a stop that was not clean.
#[test]
fn runs_are_checked_later_after_a_clean_stop_alone() {
    let first = Machine::new(1, &empty_disk());
    let unchecked = |store: &Store| store.run_stats().unchecked;
    let killed = first.executor.block_on(async {
        let (store, _) = open(&first).await;
        let digests = manifests(&store).await;
        take_round(&store, 1, digests).await.expect("no faults");
        store.checkpoint().await.expect("no faults");
        let killed = first.disk.live_image();
        store.close().await.expect("no faults");
        killed
    });
    let closed = first.disk.live_image();
    let machine = Machine::new(1, &closed);
    let killed_again = machine.executor.block_on(async {
        let (store, report) = open(&machine).await;
        assert!(report.clean && unchecked(&store) > 0);
        let image = machine.disk.live_image();
        settle(&machine).await;
        assert_eq!(unchecked(&store), 0);
        image
    });
    for image in [killed, killed_again] {
        let machine = Machine::new(1, &image);
        machine.executor.block_on(async {
            let (store, report) = open(&machine).await;
            assert!(report.checkpoint.is_some() && !report.clean);
            assert_eq!(unchecked(&store), 0);
        });
    }
}
