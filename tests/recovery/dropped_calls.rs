//! Calls that are dropped before they complete, as when a client disconnects: the store and the upload stay intact.
//!
//! Each test drops a call after its first, second, ... poll until it runs to its end. So it is dropped at every wait.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use tonnage_tests::batch_of;
use tonnage_tests::by_name::ByName as _;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use tonnage_engine::io::Class;
use tonnage_engine::{
    Algorithm, Batch, Change, Digest, Error, FinishedBlob, ManifestEntry, Options, Store, Upload,
    UploadClaim, UploadId, UploadSpec,
};
use tonnage_tests::machine::{ENOSPC, Fault, Machine, Noise, OpKind, OpRecord, Policy};
use tonnage_tests::model::drive::IDLE_UPLOAD;
use tonnage_tests::whole_blobs::{ByDigest as _, InOnePiece as _};

use super::check;

const REPOSITORY: &str = "library/a";

/// Polls a future at most `polls` times. Returns `None` if it was dropped before its end.
async fn drop_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left <= 1 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Runs `scene` with more and more polls until it returns that nothing was dropped any more. Then every file must be
/// one that something names.
fn at_every_wait(scene: impl AsyncFn(&Machine, Store, usize) -> bool) {
    for seed in 1..=2 {
        let mut polls = 1;
        loop {
            let machine = Machine::new(seed, &check::empty_disk());
            let ended = machine.executor.block_on(async {
                let store = open(&machine).await;
                let ended = scene(&machine, store.clone(), polls).await;
                store.close().await.expect("the store closes");
                ended
            });
            machine.executor.settle();
            let report = check::fsck_image(seed, &machine.disk.live_image());
            let report = report.unwrap_or_else(|why| panic!("seed {seed}, {polls} polls: {why}"));
            assert!(
                report.clean && report.findings.is_empty(),
                "seed {seed}, {polls} polls: {report:?}"
            );
            if ended {
                break;
            }
            polls += 1;
            assert!(polls < 500, "seed {seed}: no end");
        }
        println!("seed {seed}: dropped after 1 to {} polls", polls - 1);
        assert!(polls > 1, "seed {seed}: nothing was ever dropped");
    }
}

/// Returns options under which syncs of uploads are rare. A sync waits for all writes and would hide errors.
fn options() -> Options {
    Options {
        upload_checkpoint_bytes: 256 << 10,
        unsynced_bytes_max: 1 << 20,
        ..check::options()
    }
}

async fn open(machine: &Machine) -> Store {
    let opened = Store::open(machine.env.clone(), &check::store_path(), options()).await;
    opened.expect("the store opens").0
}

/// Opens the store as the next start finds it, on another machine.
fn after_restart(machine: &Machine, look: impl AsyncFnOnce(&Store)) {
    let next = Machine::new(machine.executor.seed(), &machine.disk.live_image());
    next.executor.block_on(async {
        let store = open(&next).await;
        look(&store).await;
        store.close().await.expect("the store closes");
    });
}

/// Lets work that continues after a drop complete.
async fn rest(machine: &Machine) {
    let pause = std::time::Duration::from_secs(1);
    machine.env.clock.sleep(pause).await;
}

fn begin(store: &Store) -> UploadId {
    let spec = UploadSpec {
        repository: REPOSITORY.to_owned(),
        ..UploadSpec::default()
    };
    store.begin_upload(spec).expect("an upload begins")
}

/// Returns `length` bytes that depend on `salt`.
fn bytes(salt: u8, length: usize) -> Bytes {
    (0..length)
        .map(|at| (at % 251) as u8 ^ (at / 4096) as u8 ^ salt)
        .collect()
}

async fn link(store: &Store, blob: FinishedBlob) -> Result<(), Error> {
    let digest = blob.digest();
    let batch = batch(vec![blob], vec![Change::Link(digest)]);
    store.commit(batch).await.map(drop)
}

async fn read(store: &Store, digest: &Digest) -> Result<Vec<u8>, Error> {
    let reader = store.open_blob(digest).await?.expect("the blob is stored");
    reader.read_whole(1 << 30).await
}

/// Finishes and links an upload of `whole`, and checks that it is stored so.
async fn finish_as(store: &Store, upload: &mut Upload, whole: &[u8]) {
    let digest = Digest::of(Algorithm::Sha256, whole);
    let blob = upload.finish(digest, None).await.expect("finished");
    link(store, blob).await.expect("linked");
    let stored = read(store, &digest).await.expect("intact");
    assert!(stored == whole, "other bytes are stored");
}

/// Guards: a dropped rollback leaves no write in progress that overwrites later bytes, and no checkpoint that counts
/// replaced bytes. What is pushed afterwards is stored as it was sent.
#[test]
fn a_dropped_rollback_does_not_mix_bytes() {
    const KEPT: usize = 150_000;
    // One window, whose place may be written again while its write is in progress; and many, which checkpoints count.
    for rolled_back in [60_000, 500_000] {
        at_every_wait(async |_, store, polls| {
            let id = begin(&store);
            let mut upload = store
                .open_upload(id, REPOSITORY, UploadClaim::default())
                .await
                .expect("the upload opens");
            upload.write(bytes(1, KEPT)).await.expect("sent");
            let before = upload.savepoint().await.expect("a savepoint");
            upload.write(bytes(2, rolled_back)).await.expect("sent");
            let done = drop_after(polls, upload.rollback(before)).await;
            // The client gets this offset and continues from it.
            let offset = usize::try_from(upload.offset()).expect("small");
            assert!(
                offset == KEPT || offset == KEPT + rolled_back,
                "offset {offset}"
            );
            let mut sent = [bytes(1, KEPT), bytes(2, rolled_back)].concat();
            sent.truncate(offset);
            sent.extend_from_slice(&bytes(3, 300_000));
            upload.write(bytes(3, 300_000)).await.expect("sent");
            finish_as(&store, &mut upload, &sent).await;
            done.is_some()
        });
    }
}

/// Guards: a rollback that fails because nothing could be attempted leaves all bytes or none, like one that is dropped.
/// A byte that the offset counts is in the blob.
#[test]
fn a_rollback_that_fails_loses_no_byte() {
    const KEPT: usize = 150_000;
    let (mut failed, mut kept) = (0, 0);
    for nth in 1..=24 {
        let machine = Machine::new(nth, &check::empty_disk());
        machine.executor.block_on(async {
            let store = open(&machine).await;
            let id = begin(&store);
            let mut upload = store
                .open_upload(id, REPOSITORY, UploadClaim::default())
                .await
                .expect("the upload opens");
            upload.write(bytes(1, KEPT)).await.expect("sent");
            let before = upload.savepoint().await.expect("a savepoint");
            let write = Fault::nth(OpKind::Write, nth).on("segments");
            machine.disk.add_fault(write.not_attempted());
            let sync = Fault::percent(OpKind::SyncData, 100).on("segments");
            machine.disk.add_fault(sync.not_attempted());
            let later = bytes(2, 1_000_000);
            let written = upload.write(later.clone()).await;
            let rolled_back = upload.rollback(before).await;
            machine.disk.clear_faults();
            if store.upload_status(id, REPOSITORY).is_none() {
                // A write of which only a part was attempted ends the upload.
                return;
            }
            let offset = usize::try_from(upload.offset()).expect("small");
            failed += usize::from(written.is_err());
            kept += usize::from(rolled_back.is_err());
            assert!(rolled_back.is_err() || offset == KEPT, "offset {offset}");
            let mut sent = [bytes(1, KEPT), later].concat();
            sent.truncate(offset);
            sent.extend_from_slice(&bytes(3, 300_000));
            upload.write(bytes(3, 300_000)).await.expect("sent");
            let digest = Digest::of(Algorithm::Sha256, &sent);
            let blob = upload.finish(digest, None).await.expect("finished");
            link(&store, blob).await.expect("linked");
            let stored = read(&store, &digest).await.expect("intact");
            assert!(stored == sent, "write {nth}: {rolled_back:?}");
            store.close().await.expect("the store closes");
        });
    }
    assert!(failed > 0 && kept > 0, "{failed} writes, {kept} rollbacks");
}

/// Guards: if a checkpoint finds no space, that of a rollback or one before it, the log is removed durably. After a
/// power cut the upload is gone, or has no rolled-back byte.
#[test]
fn rolled_back_bytes_do_not_return_after_a_full_disk() {
    for full_before_rollback in [false, true] {
        assert!(uploads_gone(full_before_rollback) > 0, "no log was written");
    }
}

/// Rolls an upload back on a disk without space for its log, and cuts the power. Returns in how many images it is gone.
fn uploads_gone(full_before_rollback: bool) -> u32 {
    const KEPT: usize = 200_000;
    let machine = Machine::new(1, &check::empty_disk());
    let id = machine.executor.block_on(async {
        let store = open(&machine).await;
        let id = begin(&store);
        let claim = UploadClaim::default();
        let upload = store.open_upload(id, REPOSITORY, claim).await;
        let mut upload = upload.expect("it opens");
        upload.write(bytes(1, KEPT)).await.expect("sent");
        let before = upload.savepoint().await.expect("a savepoint");
        upload.write(bytes(2, 300_000)).await.expect("sent");
        // The log names these bytes then.
        machine.env.clock.sleep(IDLE_UPLOAD).await;
        let full = Fault::percent(OpKind::Write, 100).on(".upload");
        machine.disk.add_fault(full.with_errno(ENOSPC));
        if full_before_rollback {
            upload.write(bytes(3, 1000)).await.expect("sent");
            machine.env.clock.sleep(IDLE_UPLOAD).await;
        }
        upload.rollback(before).await.expect("rolled back");
        machine.disk.stop();
        id
    });
    let mut gone = 0;
    for image in machine.disk.crash_images(&Policy::coarse(1)) {
        let next = Machine::new(1, &image.image);
        next.executor.block_on(async {
            let store = open(&next).await;
            match store.upload_status(id, REPOSITORY) {
                None => gone += 1,
                Some(status) => assert!(status.offset <= KEPT as u64, "{status:?}"),
            }
            store.close().await.expect("the store closes");
        });
    }
    gone
}

/// Guards: a write that is dropped at any wait leaves an upload whose offset is true and from which it continues.
#[test]
fn a_dropped_write_continues_at_the_offset() {
    at_every_wait(async |_, store, polls| {
        let whole = bytes(4, 700_000);
        let id = begin(&store);
        let mut upload = store
            .open_upload(id, REPOSITORY, UploadClaim::default())
            .await
            .expect("the upload opens");
        upload.write(whole.slice(..50_000)).await.expect("sent");
        let done = drop_after(polls, upload.write(whole.slice(50_000..500_000))).await;
        drop(upload);
        let status = store
            .upload_status(id, REPOSITORY)
            .expect("the upload exists");
        let mut upload = store
            .open_upload(id, REPOSITORY, UploadClaim::default())
            .await
            .expect("the upload opens");
        assert_eq!(upload.offset(), status.offset);
        let rest = whole.slice(usize::try_from(status.offset).expect("small")..);
        upload.write(rest).await.expect("sent");
        finish_as(&store, &mut upload, &whole).await;
        done.is_some()
    });
}

/// Guards: an upload whose finish was dropped can be finished again, with more bytes or without.
#[test]
fn a_dropped_finish_can_be_repeated() {
    for more in [0, 100_000] {
        at_every_wait(async |_, store, polls| {
            let first = bytes(5, 333_333);
            let id = begin(&store);
            let mut upload = store
                .open_upload(id, REPOSITORY, UploadClaim::default())
                .await
                .expect("the upload opens");
            upload.write(first.clone()).await.expect("sent");
            let digest = Digest::of(Algorithm::Sha256, &first);
            let done = drop_after(polls, upload.finish(digest, None)).await;
            let ended = done.is_some();
            if let Some(blob) = done {
                link(&store, blob.expect("finished")).await.expect("linked");
                assert!(read(&store, &digest).await.expect("intact") == first);
                return ended;
            }
            drop(upload);
            let mut upload = store
                .open_upload(id, REPOSITORY, UploadClaim::default())
                .await
                .expect("the upload opens");
            let whole = [first, bytes(6, more)].concat();
            upload.write(bytes(6, more)).await.expect("sent");
            let digest = Digest::of(Algorithm::Sha256, &whole);
            let blob = upload.finish(digest, None).await.expect("finished");
            link(&store, blob).await.expect("linked");
            assert!(read(&store, &digest).await.expect("intact") == whole);
            ended
        });
    }
}

/// Guards: a cancelled upload never returns, whatever step was dropped before.
#[test]
fn a_cancelled_upload_never_comes_back() {
    at_every_wait(async |machine, store, polls| {
        let id = begin(&store);
        let mut upload = store
            .open_upload(id, REPOSITORY, UploadClaim::default())
            .await
            .expect("the upload opens");
        let done = drop_after(polls, upload.write(bytes(7, 400_000))).await;
        store.cancel_upload(id, REPOSITORY).expect("cancelled");
        assert!(store.upload_status(id, REPOSITORY).is_none());
        let late = upload.write(bytes(7, 1)).await;
        assert!(matches!(late, Err(Error::UnknownUpload)));
        rest(machine).await;
        store.close().await.expect("the store closes");
        after_restart(machine, async |again| {
            assert!(again.upload_status(id, REPOSITORY).is_none());
        });
        done.is_some()
    });
}

/// Guards: an upload that is cancelled after its request was dropped, or that ends with it because its id is not known,
/// leaves no file, not even one that was being created, and frees its place.
#[test]
fn an_upload_that_ends_half_way_leaves_nothing() {
    for (unlisted, length) in [(false, 200_000), (true, 1_500_000)] {
        at_every_wait(async |machine, store, polls| {
            let spec = UploadSpec {
                repository: REPOSITORY.to_owned(),
                unlisted,
                ..UploadSpec::default()
            };
            let id = store.begin_upload(spec).expect("an upload begins");
            let upload = store.open_upload(id, REPOSITORY, UploadClaim::default());
            let mut upload = upload.await.expect("the upload opens");
            let done = drop_after(polls, upload.write(bytes(8, length))).await;
            drop(upload);
            rest(machine).await;
            if !unlisted {
                store.cancel_upload(id, REPOSITORY).expect("cancelled");
                rest(machine).await;
            }
            assert!(store.upload_status(id, REPOSITORY).is_none());
            assert_eq!(store.stats().await.expect("counted").uploads, 0);
            for directory in ["segments", "uploads"] {
                let directory = check::store_path().join(directory);
                let io = &machine.env.io;
                let left = io.list_dir(Class::Directory.call(), &directory).await;
                let left = left.expect("listed");
                assert!(left.is_empty(), "{polls} polls left {left:?}");
            }
            done.is_some()
        });
    }
}

/// Guards: frame and table of a large blob are read once for all concurrent opens of its segment. If the open that
/// reads is dropped, the others succeed.
#[test]
fn a_cold_record_is_read_once() {
    at_every_wait(async |machine, store, polls| {
        let whole = bytes(10, 300_000);
        let id = begin(&store);
        let upload = store.open_upload(id, REPOSITORY, UploadClaim::default());
        let mut upload = upload.await.expect("the upload opens");
        upload.write(whole.clone()).await.expect("sent");
        let digest = Digest::of(Algorithm::Sha256, &whole);
        let blob = upload.finish(digest, None).await.expect("finished");
        link(&store, blob).await.expect("linked");
        machine.disk.set_noise(Noise {
            would_block: 100,
            ..Noise::NONE
        });
        let before = machine.disk.log().len();
        let others = join_all((0..3).map(|_| store.open_blob(&digest)));
        let first = drop_after(polls, store.open_blob(&digest));
        let (first, others) = join(first, others).await;
        for opened in others {
            opened
                .expect("a disk without faults")
                .expect("the blob is stored");
        }
        let log = machine.disk.log();
        let of_record = |op: &&OpRecord| op.kind == OpKind::Read && op.offset > 300_000;
        let reads = log[before..].iter().filter(of_record).count();
        // One that is dropped before the others wait for it leaves them nothing.
        let most = if first.is_some() { 2 } else { 4 };
        assert!((2..=most).contains(&reads), "{polls} polls: {reads} reads");
        first.is_some()
    });
}

/// Guards: a dropped checkpoint is continued by the next one, and commits continue meanwhile.
#[test]
fn a_dropped_checkpoint_is_continued_by_the_next() {
    at_every_wait(async |machine, store, polls| {
        let push = async |salt| {
            let blob = store.put_small(bytes(salt, 100), Algorithm::Sha256).await;
            link(&store, blob.expect("stored")).await.expect("linked");
        };
        push(1).await;
        let done = drop_after(polls, store.checkpoint()).await;
        push(2).await;
        rest(machine).await;
        store.checkpoint().await.expect("a checkpoint");
        push(3).await;
        store.checkpoint().await.expect("a checkpoint");
        store.close().await.expect("the store closes");
        after_restart(machine, async |again| {
            for salt in 1..=3 {
                let digest = Digest::of(Algorithm::Sha256, &bytes(salt, 100));
                let found = read(again, &digest).await.expect("intact");
                assert_eq!(found, bytes(salt, 100));
            }
        });
        done.is_some()
    });
}

/// Guards: a store can be closed with more unfinished uploads in memory than segment ids are reserved, and all of them
/// continue after it.
#[test]
fn many_unfinished_uploads_survive_a_close() {
    const UPLOADS: usize = 1500;
    let machine = Machine::new(1, &check::empty_disk());
    machine.disk.set_noise(Noise::NONE);
    machine.executor.block_on(async {
        let store = open(&machine).await;
        for _ in 0..UPLOADS {
            let id = begin(&store);
            let mut upload = store
                .open_upload(id, REPOSITORY, UploadClaim::default())
                .await
                .expect("the upload opens");
            upload.write(bytes(9, 10)).await.expect("sent");
        }
        store.close().await.expect("the store closes");
        drop(store);
        let path = check::store_path();
        let opened = Store::open(machine.env.clone(), &path, options()).await;
        let (store, report) = opened.expect("the upload opens");
        assert_eq!(report.uploads_resumed, UPLOADS as u64);
        store.close().await.expect("the store closes");
    });
}

/// Guards: a deletion that is queued although its caller dropped it is completed, and its remaining rows are removed by
/// this open of the store.
#[test]
fn a_dropped_deletion_is_completed() {
    let tags = |put: &dyn Fn(String) -> Change| (0..300).map(|n| put(format!("t{n}"))).collect();
    at_every_wait(async |machine, store, polls| {
        let blob = store.put_small(bytes(1, 100), Algorithm::Sha256).await;
        let blob = blob.expect("stored");
        let (digest, size) = (blob.digest(), blob.length());
        let entry = ManifestEntry {
            digest,
            size,
            children: vec![],
            subject: None,
            attributes: Bytes::new(),
        };
        commit(&store, vec![blob], vec![Change::PutManifest(entry)]).await;
        commit(&store, vec![], tags(&|tag| Change::SetTag { tag, digest })).await;
        let batch = batch(vec![], vec![Change::DeleteManifest(digest)]);
        let done = drop_after(polls, store.commit(batch)).await;
        rest(machine).await;
        let left = store.stats().await.unwrap().deletions_unfinished;
        assert_eq!(left, 0, "after {polls} polls");
        let found = store
            .view()
            .read(|view| view.tags(REPOSITORY, None, 1))
            .await
            .expect("listed");
        let left = store
            .view()
            .read(|view| view.manifest(REPOSITORY, &digest))
            .await
            .expect("read");
        assert_eq!(found.is_empty(), left.is_none());
        done.is_some()
    });
}

fn batch(staged: Vec<FinishedBlob>, changes: Vec<Change>) -> Batch<FinishedBlob> {
    batch_of(REPOSITORY, staged, changes)
}

async fn commit(store: &Store, staged: Vec<FinishedBlob>, changes: Vec<Change>) {
    let batch = batch(staged, changes);
    store.commit(batch).await.expect("committed");
}
