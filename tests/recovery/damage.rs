//! Changes to a closed store: damaged content is never served, `fsck` names it, and nothing is deleted on the basis of
//! an incomplete store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tonnage_engine::fsck::{self, FsckOptions, FsckReport};
use tonnage_engine::vocabulary::Change;
use tonnage_engine::{Algorithm, Digest, Error, FinishedBlob, Layout, OpenReport, Options, Store};
use tonnage_tests::machine::{Fault, Image, Machine, OpKind};
use tonnage_tests::model::content;
use tonnage_tests::model::operation::Operation;
use tonnage_tests::whole_blobs::{ByDigest as _, InOnePiece as _};

use super::check;
use super::collection::{commit, put};
use super::workload::{Progress, Script, leave, manifest, push};

const SEED: u64 = 1;

/// Returns a script with contents of every size, in shared and dedicated segments, names, and a journal of several
/// files.
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

/// Returns options under which files of the journal have their usual size.
fn options() -> Options {
    Options {
        journal_file_bytes: 32 << 10,
        ..check::options()
    }
}

async fn open(machine: &Machine) -> Result<(Store, OpenReport), Error> {
    Store::open(machine.env.clone(), &check::store_path(), options()).await
}

/// Runs the script in a store whose journal is one file. Then the store is closed, or the process killed.
fn in_one_file(script: &Script, closed: bool) -> Machine {
    let options = Options {
        journal_file_bytes: 1 << 20,
        ..options()
    };
    let machine = Machine::new(SEED, &check::empty_disk());
    machine.executor.block_on(async {
        let path = check::store_path();
        let opened = Store::open(machine.env.clone(), &path, options).await;
        let (store, _) = opened.expect("the store opens");
        for step in &script.steps {
            let taken = script.take(&store, &machine.env, step).await;
            taken.expect("the step succeeds");
        }
        if closed {
            store.close().await.expect("the store closes");
        } else {
            std::mem::forget(store);
        }
    });
    machine.executor.settle();
    machine
}

/// Runs `steps` in a store on `image` and closes it.
fn closed_after(image: &Image, script: &Script, steps: &[Operation]) -> Image {
    let machine = Machine::new(SEED, image);
    machine.executor.block_on(async {
        let (store, _) = open(&machine).await.expect("the store opens");
        for step in steps {
            let taken = script.take(&store, &machine.env, step).await;
            taken.expect("the step succeeds");
        }
        store.close().await.expect("the store closes");
    });
    machine.executor.settle();
    machine.disk.live_image()
}

/// Returns a store that was closed once.
fn closed(script: &Script) -> Image {
    closed_after(&check::empty_disk(), script, &script.steps)
}

fn fsck(image: &Image) -> FsckReport {
    let machine = Machine::new(SEED, image);
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

/// Returns the files of a store with this extension, in order.
fn files(image: &Image, extension: &str) -> Vec<PathBuf> {
    let wanted = |path: &&PathBuf| path.extension().is_some_and(|found| found == extension);
    image.files.keys().filter(wanted).cloned().collect()
}

/// Returns the image with one bit of a file flipped.
pub fn flipped(image: &Image, path: &Path, offset: u64) -> Image {
    let mut image = image.clone();
    let content = image.files.get_mut(path).expect("the file is there");
    let mut byte = [0];
    assert_eq!(content.read(offset, &mut byte), 1);
    content.write(offset, &[byte[0] ^ 1 << (offset % 8)]);
    image
}

/// Guards: caches deleted while the store is closed, all or some, are rebuilt from the journal.
#[test]
fn deleted_caches_are_rebuilt_from_the_journal() {
    let script = script();
    let image = closed(&script);
    for part in ["/runs/", "checkpoint.", "/store/"] {
        let mut without = image.clone();
        without.files.retain(|path, _| {
            let text = path.to_string_lossy();
            let cache = text.contains("/runs/") || text.contains("checkpoint.");
            !(cache && text.contains(part))
        });
        assert!(without.files.len() < image.files.len(), "{part}");
        rebuilds(&without, &script);
    }
    let mut without = image.clone();
    let base = check::store_path().join("runs");
    without.files.retain(|path, _| !path.starts_with(&base));
    without.dirs.remove(&base);
    rebuilds(&without, &script);
}

/// Checks that the store opens without a checkpoint, with everything acknowledged.
fn rebuilds(image: &Image, script: &Script) {
    let machine = Machine::new(SEED, image);
    machine.executor.block_on(async {
        let (store, report) = open(&machine).await.expect("the store opens");
        assert_eq!(report.checkpoint, None);
        assert!(report.replayed > 0);
        let scripts = std::slice::from_ref(script);
        check::contract(&store, scripts, &all_of(script))
            .await
            .unwrap();
        store.close().await.expect("the store closes");
    });
    machine.executor.settle();
    let report = fsck(&machine.disk.live_image());
    assert!(report.clean && report.findings.is_empty(), "{report:?}");
}

/// Asserts that the store does not open, that `fsck` calls it damaged, and that the attempt removed nothing.
fn refused(image: &Image, why: &str) {
    let machine = Machine::new(SEED, image);
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

/// Guards: a store without one of its journal files is refused if anything left shows that the file existed: the file
/// before or after it, a checkpoint, or a segment whose id it reserved. Its segments are not taken for orphans. If a
/// checkpoint replaces the file, the store opens with everything acknowledged and reports what is missing.
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
        let mut without = image.clone();
        without.files.remove(path);
        assert!(only_the_checkpoint(&without, &script, path));
    }
    let mut without = image.clone();
    without.files.remove(last);
    refused(&without, "without the last, which a checkpoint names");
    let mut without = bare.clone();
    without.files.remove(last);
    refused(&without, "without the last, which the one before it names");
    let mut without = bare.clone();
    zero(&mut without, last, 0);
    refused(&without, "with the last empty");
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
    // A gap is not bridged either, however wide.
    let mut without = bare;
    for path in &earlier[1..] {
        without.files.remove(path);
    }
    refused(&without, "without all but the first and the last");
}

/// Overwrites a file with zeros from `from` on.
fn zero(image: &mut Image, path: &Path, from: u64) {
    let content = image.files.get_mut(path).expect("the file is there");
    let length = content.len() - from;
    content.write(from, &vec![0; usize::try_from(length).expect("small")]);
}

/// Returns the offsets of the frames of a journal file.
fn frames(image: &Image, path: &Path) -> Vec<u64> {
    let bytes = image.files[path].to_vec();
    let blocks = bytes.chunks(4096).zip((0u64..).step_by(4096));
    let frames = blocks.filter(|(block, _)| block.starts_with(b"TFRM"));
    frames.map(|(_, at)| at).collect()
}

/// Checks that the store opens with everything acknowledged and names `path`, as `fsck` does. Returns false if it is
/// refused instead.
fn only_the_checkpoint(image: &Image, script: &Script, path: &Path) -> bool {
    let found = fsck(image);
    assert!(!found.is_sound() && names(&found, path), "{found:?}");
    let advice: Vec<_> = found.findings.iter().map(|found| &*found.what).collect();
    assert!(!advice.concat().contains("elete"), "{advice:?}");
    let machine = Machine::new(SEED, image);
    let opened = machine.executor.block_on(async {
        let (store, report) = open(&machine).await.ok()?;
        let unsound: Vec<_> = report.journal_unsound.iter().map(|bad| &bad.path).collect();
        assert_eq!(unsound, [path]);
        let scripts = std::slice::from_ref(script);
        check::contract(&store, scripts, &all_of(script))
            .await
            .unwrap();
        store.close().await.ok()
    });
    machine.executor.settle();
    if opened.is_none() {
        return false;
    }
    assert!(advice.concat().contains("only copy"), "{advice:?}");
    // The next open is the same.
    assert!(names(&fsck(&machine.disk.live_image()), path));
    true
}

/// Guards: if the journal of a closed store lost frames at its end that the checkpoint contains, the store opens with
/// everything. It reports the checkpoint as the only copy, and advises no one to delete it.
#[test]
fn a_checkpoint_that_holds_more_than_the_journal_is_kept() {
    let script = script();
    let image = in_one_file(&script, true).disk.live_image();
    let path = files(&image, "journal").remove(0);
    let frames = frames(&image, &path);
    assert!(frames.len() > 10, "{frames:?}");
    // The last frame only records the close.
    for at in &frames[..frames.len() - 1] {
        let mut lost = image.clone();
        zero(&mut lost, &path, *at);
        assert!(only_the_checkpoint(&lost, &script, &path), "byte {at}");
    }
}

/// Guards: after a kill, frames at the end of the journal that are zeroed, overwritten or cut off are noticed. Every
/// acknowledged frame has its mark, so the store is refused. Without the marks only frames that the drive may not have
/// written yet count as torn; that case is not covered.
#[test]
fn lost_frames_at_the_end_of_the_journal_are_noticed() {
    let script = script();
    let machine = in_one_file(&script, false);
    let killed = machine.disk.live_image();
    let path = files(&killed, "journal").remove(0);
    let frames = frames(&killed, &path);
    assert!(frames.len() > 10, "{frames:?}");
    assert!(fsck(&killed).findings.is_empty());
    let after_power_cut = machine.disk.durable_image();
    for (number, at) in frames.iter().enumerate() {
        let mut zeroed = killed.clone();
        zero(&mut zeroed, &path, *at);
        let mut garbled = killed.clone();
        let content = garbled.files.get_mut(&path).expect("the file is there");
        for place in &frames[number..] {
            content.write(*place, &[0xa5; 100]);
        }
        let mut cut = killed.clone();
        let content = cut.files.get_mut(&path).expect("the file is there");
        content.set_len(*at);
        for (image, how) in [(zeroed, "zeroed"), (garbled, "garbled"), (cut, "cut")] {
            refused(&image, &format!("{how} from byte {at} on"));
            assert!(names(&fsck(&image), &path), "{how} from byte {at} on");
        }
        // No later frame made the mark of the last frame durable.
        if number + 1 < frames.len() {
            let mut zeroed = after_power_cut.clone();
            zero(&mut zeroed, &path, *at);
            refused(
                &zeroed,
                &format!("zeroed from byte {at} on, after a power cut"),
            );
        }
    }
}

/// Guards: a store that lost its superblock gets no new one. With three of four copies damaged it opens, `fsck` names
/// them, and they are repaired.
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
    let machine = Machine::new(SEED, &damaged);
    machine.executor.block_on(async {
        let (store, report) = open(&machine).await.expect("the store opens");
        assert_eq!(report.superblock_copies_damaged, [0, 1, 3]);
        store.close().await.expect("the store closes");
    });
    assert!(machine.disk.live_image().files[&path] == image.files[&path]);
    image.files.retain(|found, _| *found != path);
    refused(&image, "without superblock");
    image.files.retain(|path, _| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name == "reserve" || name.starts_with("checkpoint.")
    });
    refused(&image, "only the reserve and the checkpoints are left");
}

/// Guards: a store whose `journal/` and `segments/` are empty, as when their file systems are not mounted, is refused
/// and left unchanged, as long as anything else shows that it was used. One that was never written to keeps its
/// identity.
#[test]
fn a_store_without_its_file_systems_is_unchanged() {
    let mut script = script();
    script.steps.truncate(8);
    let killed = in_one_file(&script, false).disk.live_image();
    for image in [closed(&script), killed] {
        let is_in = |path: &Path, name: &str| path.starts_with(check::store_path().join(name));
        let mut unmounted = image.clone();
        unmounted.files.retain(|path, _| !is_in(path, "journal"));
        refused(&unmounted, "no journal");
        unmounted.files.retain(|path, _| !is_in(path, "segments"));
        refused(&unmounted, "no journal, no segments");
        let others = unmounted
            .files
            .keys()
            .filter(|path| !path.ends_with("superblock"));
        for left in others.cloned().collect::<Vec<_>>() {
            let mut image = unmounted.clone();
            image
                .files
                .retain(|path, _| *path == left || path.ends_with("superblock"));
            refused(&image, &format!("only {} is left", left.display()));
        }
    }
    let unused = closed_after(&check::empty_disk(), &script, &[]);
    let again = closed_after(&unused, &script, &[]);
    let path = check::store_path().join("superblock");
    assert!(
        unused.files[&path] == again.files[&path],
        "another identity"
    );
}

/// Guards: a segment that is missing or too short is noticed at open, after a clean stop and after a kill. Exactly the
/// blobs that are not whole in it count as damaged before any read. They are not served, and a push stores them again,
/// permanently.
#[test]
fn a_lost_segment_counts_as_damaged_from_the_start() {
    let script = script();
    let killed = in_one_file(&script, false).disk.live_image();
    for image in [closed(&script), killed] {
        let segments = files(&image, "segment");
        assert!(segments.len() > 2, "{segments:?}");
        let mut cut_inside = 0;
        for path in segments {
            let length = image.files[&path].len();
            let mut gone = image.clone();
            gone.files.remove(&path);
            loses(&gone, &script, &path, None);
            for there in [4096, length / 2, length - 64] {
                let mut cut = image.clone();
                let content = cut.files.get_mut(&path).expect("the file is there");
                content.set_len(there);
                cut_inside += loses(&cut, &script, &path, Some(there));
            }
        }
        assert!(cut_inside > 0, "no segment kept a part of its blobs");
    }
}

/// Opens a store without `path`, or with `there` bytes of it left, and heals it. Returns how many blobs in that segment
/// were still whole.
fn loses(image: &Image, script: &Script, path: &Path, there: Option<u64>) -> usize {
    let why = format!("{} cut to {there:?}", path.display());
    let machine = Machine::new(SEED, image);
    let mut whole = 0;
    machine.executor.block_on(async {
        let (store, report) = open(&machine).await.expect("the store opens");
        let named = report
            .segments_missing
            .iter()
            .chain(&report.segments_truncated);
        let named: Vec<_> = named.map(|id| format!("{id}.segment")).collect();
        let name = path.file_name().expect("a name").to_string_lossy();
        assert_eq!(named, [&*name], "{why}");
        assert_eq!(report.segments_missing.is_empty(), there.is_some(), "{why}");
        let after = script.after(script.steps.len());
        for digest in after.links.iter().chain(after.manifests.keys()) {
            let stored = store
                .view()
                .read(|view| view.blob(digest))
                .await
                .unwrap()
                .expect("the blob is stored");
            let inside = format!("{}.segment", stored.extent.segment) == name;
            let end = stored.extent.offset + stored.extent.length;
            let lost = inside
                && (stored.extent.layout == Layout::Trailing || there.is_none_or(|at| at < end));
            assert_eq!(
                store.is_damaged(digest).await.unwrap(),
                lost,
                "{why}: {digest}"
            );
            whole += usize::from(inside && !lost);
            let read = async {
                let reader = store.open_blob(digest).await?.expect("the blob is stored");
                reader.read_whole(1 << 30).await
            };
            let read = read.await;
            assert_eq!(matches!(read, Err(Error::Corrupt(_))), lost, "{why}");
        }
        for step in &script.steps {
            let taken = script.take(&store, &machine.env, step).await;
            taken.unwrap_or_else(|error| panic!("{why}: {error}"));
        }
        let scripts = std::slice::from_ref(script);
        check::contract(&store, scripts, &all_of(script))
            .await
            .unwrap();
        store.close().await.expect("the store closes");
    });
    machine.executor.settle();
    let healed = machine.disk.live_image();
    assert!(fsck(&healed).is_sound(), "{why}: {:?}", fsck(&healed));
    let machine = Machine::new(SEED, &healed);
    machine.executor.block_on(async {
        let (store, _) = open(&machine).await.expect("the store opens");
        for digest in script.after(script.steps.len()).links {
            assert!(!store.is_damaged(&digest).await.unwrap(), "{why}: {digest}");
        }
    });
    whole
}

/// Guards: every blob of a lost segment is listed once for whoever heals it, also if there are more than a step of the
/// scan looks at, and whatever else references them.
#[test]
fn all_blobs_of_a_lost_segment_are_listed() {
    const BLOBS: u32 = 5000;
    let machine = Machine::new(SEED, &check::empty_disk());
    let mut expected: Vec<_> = machine.executor.block_on(async {
        let (store, _) = open(&machine).await.expect("the store opens");
        let mut all = Vec::new();
        for (salt, first) in (0..).zip((0..BLOBS).step_by(500)) {
            let mut staged = Vec::new();
            for number in first..first + 500 {
                let content = Bytes::copy_from_slice(&number.to_le_bytes());
                staged.push(store.put_small(content, Algorithm::Sha256).await.unwrap());
            }
            let some: Vec<_> = staged.iter().map(FinishedBlob::digest).collect();
            let links = some.iter().copied().map(Change::Link).collect();
            commit(&store, "a", staged, links).await;
            // It references half of them.
            all.push(put(&store, "a", salt, &some[..250]).await);
            all.extend(some);
        }
        store.close().await.expect("the store closes");
        all
    });
    machine.executor.settle();
    let mut image = machine.disk.live_image();
    let segments = files(&image, "segment");
    assert!(
        segments
            .iter()
            .all(|path| image.files.remove(path).is_some())
    );
    let machine = Machine::new(SEED, &image);
    let mut listed = machine.executor.block_on(async {
        let (store, _) = open(&machine).await.expect("the store opens");
        let (mut damaged, mut listed) = (store.damaged_blobs(), Vec::new());
        while let Some((digest, _)) = damaged.next().await.unwrap() {
            listed.push(digest);
        }
        store.close().await.expect("the store closes");
        listed
    });
    listed.sort_unstable();
    expected.sort_unstable();
    assert!(listed == expected, "{} of {}", listed.len(), expected.len());
}

/// Guards: empty directories may be missing, as in some copies of a store. Without `uploads/` it opens, and `fsck` has
/// no findings. A store without blobs needs no `segments/` either; one with blobs is refused without it.
#[test]
fn empty_directories_may_be_missing() {
    let script = script();
    let uploads = check::store_path().join("uploads");
    let segments = check::store_path().join("segments");
    let mut image = closed(&script);
    image.dirs.remove(&uploads);
    works(&image, &script);
    let mut empty = closed_after(&check::empty_disk(), &script, &[]);
    empty.dirs.remove(&uploads);
    empty.dirs.remove(&segments);
    works(&empty, &script);
    image.files.retain(|path, _| !path.starts_with(&segments));
    image.dirs.remove(&segments);
    let machine = Machine::new(SEED, &image);
    let opened = machine.executor.block_on(open(&machine));
    assert!(
        matches!(opened, Err(Error::Corrupt(_))),
        "its blobs are gone"
    );
    assert!(!fsck(&image).is_sound());
}

/// Checks that `fsck` has no findings, and that the store opens and accepts the script.
fn works(image: &Image, script: &Script) {
    let report = fsck(image);
    assert!(report.clean && report.findings.is_empty(), "{report:?}");
    let image = closed_after(image, script, &script.steps);
    let report = fsck(&image);
    assert!(report.clean && report.findings.is_empty(), "{report:?}");
}

/// Guards: `fsck` continues after an upload log that it cannot read, and finds later damage.
#[test]
fn fsck_continues_after_an_unreadable_log() {
    let mut script = script();
    script.steps.push(leave(9));
    let image = closed(&script);
    let log = files(&image, "upload").remove(0);
    let segment = files(&image, "segment").remove(0);
    let damaged = flipped(&image, &segment, 4096 + 128 + 64);
    let machine = Machine::new(SEED, &damaged);
    let fault = Fault::nth(OpKind::Open, 1).on(".upload");
    machine.disk.add_fault(fault);
    let (path, options) = (check::store_path(), FsckOptions { deep: true });
    let checked = machine
        .executor
        .block_on(fsck::check(&machine.env, &path, options, &|_, _| {}));
    let report = checked.expect("fsck ended at the log");
    assert!(
        names(&report, &log) && names(&report, &segment),
        "{report:?}"
    );
    assert!(!report.is_sound());
}

/// Guards: `fsck` names a damaged journal file that the checkpoint does not need, and still checks every blob.
#[test]
fn fsck_checks_blobs_after_a_damaged_journal() {
    let script = script();
    let image = closed(&script);
    let journal = files(&image, "journal").remove(0);
    let segment = files(&image, "segment").remove(0);
    let damaged = flipped(&image, &segment, 4096 + 128 + 64);
    let damaged = flipped(&damaged, &journal, frames(&image, &journal)[1] + 20);
    let report = fsck(&damaged);
    assert!(
        names(&report, &journal) && names(&report, &segment),
        "{report:?}"
    );
}

/// Guards: `fsck` reports bytes after the end of a dedicated segment, but not as damage: they are never read, and no
/// push removes them.
#[test]
fn bytes_after_a_dedicated_segment_are_reported() {
    let script = script();
    let image = closed(&script);
    let mut noticed = 0;
    for path in files(&image, "segment") {
        let mut longer = image.clone();
        let content = longer.files.get_mut(&path).expect("the file is there");
        let dedicated = {
            let mut class = [0];
            content.read(12, &mut class);
            class == [2]
        };
        content.write(content.len(), &[7; 100]);
        let report = fsck(&longer);
        assert_eq!(names(&report, &path), dedicated, "{report:?}");
        assert!(report.is_sound(), "{report:?}");
        noticed += usize::from(dedicated);
    }
    assert!(noticed > 0, "no segment was dedicated");
}

/// Guards: damage found by a read is known after the next start, whether the store was closed, or killed once the mark
/// was durable. It stays known until the blob is pushed again. Nothing else counts as damaged.
#[test]
fn damage_is_remembered_until_it_is_healed() {
    let script = script();
    let digest = content::digest(9);
    for closed_then in [true, false] {
        let image = closed(&script);
        let machine = Machine::new(SEED, &image);
        let extent = machine.executor.block_on(async {
            let (store, _) = open(&machine).await.expect("the store opens");
            let stored = store
                .view()
                .read(|view| view.blob(&digest))
                .await
                .unwrap()
                .expect("the blob is stored");
            store.close().await.expect("the store closes");
            stored.extent
        });
        let path = check::store_path().join(format!("segments/{}.segment", extent.segment));
        let damaged = flipped(&image, &path, extent.offset + 70_000);
        let machine = Machine::new(SEED, &damaged);
        machine.executor.block_on(async {
            let (store, _) = open(&machine).await.expect("the store opens");
            assert!(!store.is_damaged(&digest).await.unwrap());
            let reader = store.open_blob(&digest).await.expect("the blob opens");
            let read = reader
                .expect("the blob is stored")
                .read_whole(1 << 30)
                .await;
            assert!(matches!(read, Err(Error::Corrupt(_))), "{read:?}");
            assert!(store.is_damaged(&digest).await.unwrap());
            if closed_then {
                store.close().await.expect("the store closes");
            } else {
                machine.env.clock.sleep(Duration::from_secs(1)).await;
                std::mem::forget(store);
            }
        });
        let mut images = vec![machine.disk.live_image()];
        if !closed_then {
            images.push(machine.disk.durable_image());
        }
        for image in images {
            check_restored_blob(
                &flipped(&image, &path, extent.offset + 70_000),
                &digest,
                &path,
            );
            let machine = Machine::new(SEED, &image);
            machine.executor.block_on(async {
                let (store, report) = open(&machine).await.expect("the store opens");
                assert_eq!(report.blobs_damaged, 1);
                for number in [1, 3, 5, 6, 7, 8, 9] {
                    let marked = store.is_damaged(&content::digest(number)).await.unwrap();
                    assert_eq!(marked, number == 9, "content {number}");
                }
                let pushed = script.take(&store, &machine.env, &push(9)).await;
                pushed.expect("the push heals it");
                assert!(!store.is_damaged(&digest).await.unwrap());
                let scripts = std::slice::from_ref(&script);
                check::contract(&store, scripts, &all_of(&script))
                    .await
                    .unwrap();
                store.close().await.expect("the store closes");
            });
            machine.executor.settle();
            let healed = machine.disk.live_image();
            let report = fsck(&healed);
            assert!(report.clean && report.findings.is_empty(), "{report:?}");
            let machine = Machine::new(SEED, &healed);
            machine.executor.block_on(async {
                let (store, report) = open(&machine).await.expect("the store opens");
                assert_eq!(report.blobs_damaged, 0);
                assert!(!store.is_damaged(&digest).await.unwrap());
            });
        }
    }
}

/// Checks `image`, in which a blob recorded as damaged has its right bytes again: `fsck` lists it, a partial read
/// clears nothing, a whole read clears the mark permanently.
fn check_restored_blob(image: &Image, digest: &Digest, segment: &Path) {
    let report = fsck(image);
    assert!(report.is_sound() && names(&report, segment), "{report:?}");
    let machine = Machine::new(SEED, image);
    machine.executor.block_on(async {
        let (store, _) = open(&machine).await.expect("the store opens");
        let reader = store.open_blob(digest).await.expect("the blob opens");
        let reader = reader.expect("the blob is stored");
        let part = reader.read(0..1).next().await;
        assert!(
            part.is_ok() && store.is_damaged(digest).await.unwrap(),
            "{part:?}"
        );
        reader
            .read_whole(1 << 30)
            .await
            .expect("the blob is intact");
        assert!(!store.is_damaged(digest).await.unwrap());
        store.close().await.expect("the store closes");
    });
    machine.executor.settle();
    let image = machine.disk.live_image();
    let report = fsck(&image);
    assert!(report.findings.is_empty(), "{report:?}");
    let machine = Machine::new(SEED, &image);
    machine.executor.block_on(async {
        let (_, report) = open(&machine).await.expect("the store opens");
        assert_eq!(report.blobs_damaged, 0);
    });
}
