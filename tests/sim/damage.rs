//! A closed store that somebody or something changed: what is damaged is never served, `fsck` names it, and nothing is
//! thrown away on the word of a store that is not whole.

use std::path::{Path, PathBuf};

use tonnage_engine::fsck::{self, FsckOptions, FsckReport};
use tonnage_engine::{Error, OpenReport, Options, Store};
use tonnage_tests::model::operation::Operation;
use tonnage_tests::sim::{Image, SimEnv};

use super::check;
use super::workload::{Progress, Script, manifest, push};

const SEED: u64 = 1;

/// Contents of every size in shared segments and segments of their own, names, and a journal of several files.
fn script() -> Script {
    let mut steps: Vec<_> = [1, 3, 5, 6, 7, 8, 9].map(push).to_vec();
    steps.extend((100..122).map(|number| manifest(number, &[1, 3, 9], "latest")));
    Script {
        repository: "library/a",
        steps,
    }
}

fn all_of(script: &Script) -> [Progress; 1] {
    let count = script.steps.len();
    [Progress {
        begun: count,
        done: count,
    }]
}

/// Whole files in the journal matter here, not how small they can be.
fn options() -> Options {
    Options {
        journal_file_bytes: 32 << 10,
        ..check::options()
    }
}

async fn open(machine: &SimEnv) -> Result<(Store, OpenReport), Error> {
    Store::open(machine.env.clone(), &check::store_path(), options()).await
}

/// Takes `steps` in a store on `image` and closes it.
fn closed_after(image: &Image, script: &Script, steps: &[Operation]) -> Image {
    let machine = SimEnv::new(SEED, image);
    machine.executor.block_on(async {
        let (store, _) = open(&machine).await.expect("it opens");
        for step in steps {
            let taken = script.take(&store, &machine.env, step).await;
            taken.expect("the step succeeds");
        }
        store.close().await.expect("it closes");
    });
    machine.executor.settle();
    machine.disk.live_image()
}

/// A store that was closed once.
fn closed(script: &Script) -> Image {
    closed_after(&check::empty_disk(), script, &script.steps)
}

fn fsck(image: &Image) -> FsckReport {
    let machine = SimEnv::new(SEED, image);
    let options = FsckOptions { deep: true };
    let path = check::store_path();
    let checked = machine
        .executor
        .block_on(fsck::check(&machine.env, &path, options, &|_, _| {}));
    checked.unwrap_or_else(|error| panic!("fsck: {error}"))
}

fn names(report: &FsckReport, path: &Path) -> bool {
    report.findings.iter().any(|finding| finding.path == path)
}

/// Files of a store with this extension, in order.
fn files(image: &Image, extension: &str) -> Vec<PathBuf> {
    let wanted = |path: &&PathBuf| path.extension().is_some_and(|found| found == extension);
    image.files.keys().filter(wanted).cloned().collect()
}

/// The image with one bit of a file turned.
fn flipped(image: &Image, path: &Path, offset: u64) -> Image {
    let mut image = image.clone();
    let content = image.files.get_mut(path).expect("the file is there");
    let mut byte = [0];
    assert_eq!(content.read(offset, &mut byte), 1);
    content.write(offset, &[byte[0] ^ 1 << (offset % 8)]);
    image
}

/// Guards: caches deleted while the store is closed, all or some, come back from the journal.
#[test]
fn deleted_caches_come_back_from_the_journal() {
    let script = script();
    let image = closed(&script);
    for part in ["/base/", "checkpoint.", "/store/"] {
        let mut without = image.clone();
        without.files.retain(|path, _| {
            let text = path.to_string_lossy();
            let cache = text.contains("/base/") || text.contains("checkpoint.");
            !(cache && text.contains(part))
        });
        assert!(without.files.len() < image.files.len(), "{part}");
        rebuilds(&without, &script);
    }
    let mut without = image.clone();
    let base = check::store_path().join("base");
    without.files.retain(|path, _| !path.starts_with(&base));
    without.dirs.remove(&base);
    rebuilds(&without, &script);
}

/// Opens without a checkpoint, with all that was acknowledged.
fn rebuilds(image: &Image, script: &Script) {
    let machine = SimEnv::new(SEED, image);
    machine.executor.block_on(async {
        let (store, report) = open(&machine).await.expect("it opens");
        assert_eq!(report.checkpoint, None);
        assert!(report.replayed > 0);
        let scripts = std::slice::from_ref(script);
        check::contract(&store, scripts, &all_of(script))
            .await
            .unwrap();
        store.close().await.expect("it closes");
    });
    machine.executor.settle();
    let report = fsck(&machine.disk.live_image());
    assert!(report.clean && report.findings.is_empty(), "{report:?}");
}

/// Asserts that the store does not open, that `fsck` calls it damaged, and that the attempt removed nothing.
fn refused(image: &Image, why: &str) {
    let machine = SimEnv::new(SEED, image);
    let opened = machine.executor.block_on(open(&machine));
    let opened = opened.map(|(_, report)| report);
    assert!(
        matches!(opened, Err(Error::Corrupt(_))),
        "{why}: {opened:?}"
    );
    machine.executor.settle();
    assert!(
        machine.disk.live_image() == *image,
        "{why}: the attempt changed the store"
    );
}

/// Guards: a store with a journal file missing is refused, whichever it is, as far as anything left tells of it: a later
/// file, a checkpoint, or a segment whose id it reserved. Its segments are not taken for orphans.
#[test]
fn a_missing_journal_file_is_refused() {
    let script = script();
    let half = 4;
    let first = closed_after(&check::empty_disk(), &script, &script.steps[..half]);
    let image = closed_after(&first, &script, &script.steps[half..]);
    let first_epoch = files(&first, "journal").len();
    let journals = files(&image, "journal");
    assert!(journals.len() > first_epoch + 1);
    let mut bare = image.clone();
    bare.files
        .retain(|path, _| !path.to_string_lossy().contains("checkpoint."));
    let (last, earlier) = journals.split_last().expect("there are some");
    for path in earlier {
        let mut without = bare.clone();
        without.files.remove(path);
        refused(&without, &format!("without {}", path.display()));
        assert!(!fsck(&without).is_sound());
        // A checkpoint makes up for what is before it; fsck misses the file all the same.
        let mut without = image.clone();
        without.files.remove(path);
        assert!(!fsck(&without).is_sound());
    }
    let mut without = image.clone();
    without.files.remove(last);
    refused(&without, "without the last, which a checkpoint names");
    let mut without = bare.clone();
    for path in &journals[first_epoch..] {
        without.files.remove(path);
    }
    refused(&without, "without the second epoch");
    assert!(!fsck(&without).is_sound());
    for path in &journals {
        without.files.remove(path);
    }
    refused(&without, "without any");
    assert!(!fsck(&without).is_sound());
    // Nor is a gap bridged, however wide.
    let mut without = bare;
    for path in &earlier[1..] {
        without.files.remove(path);
    }
    refused(&without, "without all but the first and the last");
}

/// Guards: a store that lost its superblock gets no new one; with three of four copies damaged it opens, and `fsck` names them.
#[test]
fn a_missing_superblock_is_refused_and_one_copy_is_enough() {
    let script = script();
    let mut image = closed(&script);
    let path = check::store_path().join("superblock");
    let mut damaged = image.clone();
    for copy in [0, 1, 3] {
        damaged = flipped(&damaged, &path, copy * 4096 + 20);
    }
    assert!(names(&fsck(&damaged), &path));
    let machine = SimEnv::new(SEED, &damaged);
    machine.executor.block_on(async {
        let (store, report) = open(&machine).await.expect("it opens");
        assert_eq!(report.superblock_copies_damaged, [0, 1, 3]);
        store.close().await.expect("it closes");
    });
    image.files.retain(|path, _| {
        let text = path.to_string_lossy();
        !(text.contains("checkpoint.") || text.ends_with("reserve") || text.ends_with("superblock"))
    });
    refused(&image, "without superblock");
}
