//! Quiet uploads, and uploads during a shortage of memory, descriptors or space: what they keep, and which ones are
//! evicted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use tokio::sync::Notify;
use tonnage_engine::io::Class;
use tonnage_engine::{
    Change, Digest, Error, FinishedBlob, Layout, Options, Store, Upload, UploadClaim, UploadId,
    UploadPosition, UploadSpec,
};
use tonnage_tests::batch_of;
use tonnage_tests::machine::{Fault, Machine, OpKind};
use tonnage_tests::whole_blobs::{ByDigest as _, InOnePiece as _};

use super::check;

pub const REPOSITORY: &str = "library/a";
const ENOSPC: i32 = 28;
/// Far more than the time after which an upload is quiet.
const LONG: Duration = Duration::from_secs(5);

pub struct Setup {
    pub machine: Machine,
    pub store: Store,
}

pub fn run(options: Options, test: impl AsyncFn(&Setup)) {
    for seed in 1..=3 {
        let setup = Setup::start(Machine::new(seed, &check::empty_disk()), options.clone());
        setup.machine.executor.block_on(async {
            test(&setup).await;
            setup.store.close().await.expect("the store closes");
        });
        setup.machine.executor.settle();
        check::fsck_image(seed, &setup.machine.disk.live_image())
            .unwrap_or_else(|why| panic!("{why}"));
    }
}

/// Returns bytes that differ for each salt.
pub fn content(salt: usize, length: usize) -> Bytes {
    let bytes = (0..length).map(|at| (at % 241) as u8 ^ (at / 4096) as u8 ^ salt as u8);
    bytes.collect()
}

pub fn digest(whole: &Bytes) -> Digest {
    Digest::of(tonnage_engine::Algorithm::Sha256, whole)
}

impl Setup {
    fn start(machine: Machine, options: Options) -> Self {
        let store = machine.executor.block_on(async {
            let path = check::store_path();
            let opened = Store::open(machine.env.clone(), &path, options).await;
            opened.expect("the store opens").0
        });
        Self { machine, store }
    }

    pub fn begin(&self) -> Result<UploadId, Error> {
        self.begin_in(REPOSITORY)
    }

    fn begin_in(&self, repository: &str) -> Result<UploadId, Error> {
        self.store.begin_upload(UploadSpec {
            repository: repository.to_owned(),
            ..UploadSpec::default()
        })
    }

    pub async fn open(&self, id: UploadId) -> Result<Upload, Error> {
        let claim = UploadClaim::default();
        self.store.open_upload(id, REPOSITORY, claim).await
    }

    /// Sends a part and leaves the upload open.
    pub async fn leave(&self, part: Bytes) -> UploadId {
        let id = self.begin().expect("room for an upload");
        let mut upload = self.open(id).await.expect("the upload exists");
        send(&mut upload, part)
            .await
            .expect("a disk without faults");
        id
    }

    pub fn offset(&self, id: UploadId) -> Option<u64> {
        let status = self.store.upload_status(id, REPOSITORY);
        status.map(|status| status.offset)
    }

    /// Sends the rest, and links the finished blob.
    async fn finish_upload(&self, id: UploadId, whole: &Bytes) -> Result<(), Error> {
        let mut upload = self.open(id).await?;
        let rest = whole.slice(usize::try_from(upload.offset()).expect("small")..);
        send(&mut upload, rest).await?;
        let blob = upload.finish(digest(whole), None).await?;
        self.link(blob).await?;
        let reader = self.store.open_blob(&digest(whole)).await?;
        let read = reader
            .expect("the blob is stored")
            .read_whole(1 << 30)
            .await?;
        assert!(read == *whole, "other bytes");
        Ok(())
    }

    pub async fn push(&self, whole: &Bytes) -> Result<(), Error> {
        let id = self.begin()?;
        self.finish_upload(id, whole).await
    }

    pub async fn link(&self, blob: FinishedBlob) -> Result<(), Error> {
        let digest = blob.digest();
        let batch = batch_of(REPOSITORY, vec![blob], vec![Change::Link(digest)]);
        self.store.commit(batch).await.map(drop)
    }

    async fn layout(&self, whole: &Bytes) -> Layout {
        let stored = self
            .store
            .view()
            .read(|view| view.blob(&digest(whole)))
            .await;
        stored
            .expect("a sound row")
            .expect("the blob is stored")
            .extent
            .layout
    }

    pub async fn wait(&self) {
        self.machine.env.clock.sleep(LONG).await;
    }

    fn segments_created(&self) -> usize {
        let log = self.machine.disk.log();
        let created = |kind, path: &std::path::Path| {
            kind == OpKind::Create && path.extension().is_some_and(|end| end == "segment")
        };
        log.iter()
            .filter(|record| created(record.kind, &record.path))
            .count()
    }
}

pub async fn send(upload: &mut Upload, mut bytes: Bytes) -> Result<(), Error> {
    while !bytes.is_empty() {
        upload
            .write(bytes.split_to(bytes.len().min(30_011)))
            .await?;
    }
    Ok(())
}

/// Guards: quiet uploads free their memory and descriptors after a few seconds and continue where they were; so do
/// requests that only wait for their client.
#[test]
fn quiet_uploads_keep_no_memory() {
    run(check::options(), async |setup| {
        let open = setup.machine.disk.open_files();
        // As much as the budget allows; then memory is full.
        let small: Vec<_> = (0..16).map(|salt| content(salt, 64 << 10)).collect();
        let mut left = Vec::new();
        for whole in &small {
            left.push(setup.leave(whole.slice(..60_000)).await);
        }
        let large = content(99, 300_000);
        let id = setup.begin().expect("room");
        let mut stalled = setup.open(id).await.expect("the upload exists");
        send(&mut stalled, large.slice(..250_000))
            .await
            .expect("a disk without faults");
        setup.wait().await;
        assert_eq!(setup.machine.disk.open_files(), open);
        let created = setup.segments_created();
        let more = content(100, 90_000);
        setup.leave(more).await;
        assert_eq!(
            setup.segments_created(),
            created,
            "memory was not given back"
        );
        send(&mut stalled, large.slice(250_000..))
            .await
            .expect("a disk without faults");
        let blob = stalled
            .finish(digest(&large), None)
            .await
            .expect("the digest matches");
        setup.link(blob).await.expect("a disk without faults");
        for (id, whole) in left.into_iter().zip(&small) {
            assert_eq!(setup.offset(id), Some(60_000));
            setup
                .finish_upload(id, whole)
                .await
                .expect("the upload continues");
            assert_eq!(
                setup.layout(whole).await,
                Layout::Leading,
                "small blobs share segments"
            );
        }
    });
}

/// Guards: a small push goes to a shared segment also when idle uploads have used up the memory for uploads.
#[test]
fn small_pushes_share_segments_when_memory_is_short() {
    run(check::options(), async |setup| {
        for salt in 0..16 {
            setup.leave(content(salt, 65_000)).await;
        }
        for salt in 0..4 {
            let whole = content(200 + salt, 12_000);
            setup.push(&whole).await.expect("a disk without faults");
            assert_eq!(setup.layout(&whole).await, Layout::Leading);
        }
    });
}

/// Guards: uploads use at most three quarters of the files that may be open, wait for each other, and all make
/// progress.
#[test]
fn uploads_have_a_share_of_open_files() {
    let options = Options {
        open_files_max: 8,
        ..check::options()
    };
    run(options, async |setup| {
        let open = setup.machine.disk.open_files();
        let whole: Vec<_> = (0..12).map(|salt| content(salt, 400_000)).collect();
        let mut left = Vec::new();
        for whole in &whole {
            let id = setup.begin().expect("room");
            let mut upload = setup.open(id).await.expect("the upload exists");
            send(&mut upload, whole.slice(..200_000))
                .await
                .expect("a disk without faults");
            // Four segments, and two logs of those that are being suspended.
            assert!(setup.machine.disk.open_files() <= open + 6);
            // Half of the requests only wait for their client.
            left.push((id, (left.len() % 2 == 0).then_some(upload)));
        }
        for ((id, upload), whole) in left.into_iter().zip(&whole) {
            drop(upload);
            setup
                .finish_upload(id, whole)
                .await
                .expect("the upload continues");
        }
    });
}

/// Guards: clients that send a little now and then, and so are never quiet, do not keep descriptors from others.
#[test]
fn slow_uploads_take_turns() {
    let options = Options {
        open_files_max: 8,
        ..check::options()
    };
    run(options, async |setup| {
        let done = AtomicBool::new(false);
        let trickle = async |salt: usize| {
            let id = setup.leave(content(salt, 200_000)).await;
            let mut upload = setup.open(id).await.expect("the upload exists");
            for _ in 0..300 {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let bit = send(&mut upload, content(salt, 100)).await;
                bit.expect("a disk without faults");
                let pause = Duration::from_millis(100);
                setup.machine.env.clock.sleep(pause).await;
            }
            panic!("no other upload made progress");
        };
        let push = async {
            setup.wait().await;
            for salt in 0..3 {
                let whole = content(50 + salt, 400_000);
                setup.push(&whole).await.expect("the push succeeds");
            }
            done.store(true, Ordering::Relaxed);
        };
        join(join_all((0..4).map(trickle)), push).await;
    });
}

/// Guards: uploads that wait for a descriptor in order to be suspended do not block those that would free one.
#[test]
fn stalled_uploads_free_descriptors() {
    let options = Options {
        open_files_max: 8,
        ..check::options()
    };
    run(options, async |setup| {
        let mut stalled = Vec::new();
        for salt in 0..12 {
            let id = setup.leave(content(salt, 200_000)).await;
            stalled.push(setup.open(id).await.expect("the upload exists"));
        }
        setup.wait().await;
        for upload in &mut stalled {
            let part = send(upload, content(0, 100)).await;
            part.expect("the bytes stay in memory");
        }
        for salt in 20..24 {
            setup.leave(content(salt, 200_000)).await;
        }
        setup.wait().await;
        let whole = content(50, 400_000);
        setup.push(&whole).await.expect("the push succeeds");
    });
}

/// Guards: a stop without free descriptors is a clean one.
#[test]
fn a_stop_without_descriptors_is_clean() {
    run(check::options(), async |setup| {
        setup.leave(content(1, 12_000)).await;
        let disk = &setup.machine.disk;
        for nth in 1..8 {
            disk.add_fault(
                Fault::nth(OpKind::Create, nth)
                    .on("segments")
                    .not_attempted(),
            );
        }
    });
}

/// Guards: an upload that finds no space at a stop does not make it unclean, and loses only what is not on disk yet.
#[test]
fn an_upload_without_space_leaves_a_stop_clean() {
    run(check::options(), async |setup| {
        // Idle and partly on disk, and with bytes in memory only.
        let id = setup.leave(content(1, 250_000)).await;
        setup.wait().await;
        let mut upload = setup.open(id).await.expect("the upload exists");
        let sent = send(&mut upload, content(2, 10_000)).await;
        sent.expect("the bytes stay in memory");
        setup.leave(content(3, 12_000)).await;
        for nth in 1..8 {
            let full = Fault::nth(OpKind::Write, nth).on(".segment");
            setup.machine.disk.add_fault(full.with_errno(ENOSPC));
        }
    });
}

/// Guards: bytes that stayed in memory because there was first no budget and then no descriptor are suspended too.
#[test]
fn bytes_beyond_the_budget_are_suspended() {
    run(check::options(), async |setup| {
        let id = setup.leave(content(1, 300_000)).await;
        setup.wait().await;
        for salt in 0..14 {
            setup.leave(content(salt, 60_000)).await;
        }
        let disk = &setup.machine.disk;
        disk.add_fault(Fault::nth(OpKind::Open, 1).on(".segment").not_attempted());
        let mut upload = setup.open(id).await.expect("the upload exists");
        let refused = send(&mut upload, content(2, 10_000)).await;
        assert!(
            matches!(refused, Err(Error::NotAttempted { .. })),
            "{refused:?}"
        );
        drop(upload);
        assert_eq!(setup.offset(id), Some(310_000));
        let opened = |setup: &Setup| {
            let is_segment =
                |path: &std::path::Path| path.extension().is_some_and(|end| end == "segment");
            let log = setup.machine.disk.log();
            log.iter()
                .filter(|op| op.kind == OpKind::Open && is_segment(&op.path))
                .count()
        };
        let before = opened(setup);
        setup.wait().await;
        assert!(opened(setup) > before, "the bytes stay in memory");
    });
}

/// Guards: on a full disk the longest idle uploads are evicted, one at a time, for those that continue. One in use is
/// not. One that was used a moment ago is waited for, because its client may have started over.
#[test]
fn idle_uploads_are_evicted_on_a_full_disk() {
    let options = Options {
        reserve_bytes: 64 << 10,
        ..check::options()
    };
    run(options, async |setup| {
        let part = || content(1, 250_000);
        let held = setup.leave(part()).await;
        let holder = setup.open(held).await.expect("the upload exists");
        let first = setup.leave(part()).await;
        setup.wait().await;
        let second = setup.leave(part()).await;
        setup.wait().await;
        let used = setup.machine.disk.used_bytes();
        setup.machine.disk.set_capacity(Some(used + 250_000));
        let whole = content(7, 400_000);
        setup.push(&whole).await.expect("the first is evicted");
        assert_eq!(setup.offset(first), None);
        assert_eq!(setup.offset(second), Some(250_000));
        let unknown = setup.open(first).await.map(drop);
        assert!(matches!(unknown, Err(Error::UnknownUpload)), "{unknown:?}");

        // Used a moment ago.
        drop(setup.open(second).await.expect("the upload exists"));
        let clock = &setup.machine.env.clock;
        let (used, before) = (setup.machine.disk.used_bytes(), clock.monotonic());
        setup.machine.disk.set_capacity(Some(used + 200_000));
        let pushed = setup.push(&content(8, 400_000)).await;
        pushed.expect("the second is evicted");
        assert_eq!(setup.offset(second), None);
        assert!(clock.monotonic() - before >= Duration::from_secs(2));
        let full = setup.push(&content(9, 400_000)).await;
        assert!(matches!(full, Err(Error::NoSpace { .. })), "{full:?}");
        drop(holder);
        assert_eq!(setup.offset(held), Some(250_000));
        setup.machine.disk.set_capacity(None);
    });
}

/// Guards: an upload whose next request waits for a step in progress, such as a suspension, is in use: it is not
/// evicted.
#[test]
fn an_upload_with_a_request_waiting_is_in_use() {
    let options = Options {
        uploads_max: 1,
        ..check::options()
    };
    run(options, async |setup| {
        let written = Arc::new(Notify::new());
        let signal = Arc::clone(&written);
        setup.machine.disk.watch(move |_| signal.notify_one());
        let id = setup.leave(content(1, 10_000)).await;
        let opening = loop {
            written.notified().await;
            let mut opening = Box::pin(setup.open(id));
            match opening.as_mut().now_or_never() {
                None => break opening,
                // This request was too late: the upload has bytes in memory again, which will be written.
                Some(upload) => {
                    let mut upload = upload.expect("the upload exists");
                    send(&mut upload, content(1, 10))
                        .await
                        .expect("a disk without faults");
                }
            }
        };
        setup.machine.disk.unwatch();
        let other = setup.begin_in("library/b");
        assert!(
            matches!(other, Err(Error::TooManyUploads { .. })),
            "{other:?}"
        );
        drop(opening.await.expect("the upload exists"));
        setup
            .begin_in("library/b")
            .expect("the upload is not in use");
    });
}

/// Guards: on a full disk an upload is evicted only for bytes that a request writes, and only if it has bytes on disk.
/// No upload is evicted for an announced length, or to suspend idle uploads. A length that cannot fit is rejected.
#[test]
fn space_is_made_for_bytes_that_are_written() {
    run(check::options(), async |setup| {
        let disk = &setup.machine.disk;
        let on_disk = setup.leave(content(1, 250_000)).await;
        setup.wait().await;
        disk.set_capacity(Some(disk.used_bytes()));
        let in_memory = setup.leave(content(2, 1_000)).await;
        setup.wait().await;
        assert_eq!(setup.offset(on_disk), Some(250_000));
        assert_eq!(setup.offset(in_memory), Some(1_000));

        disk.set_capacity(Some(disk.used_bytes() + 100_000));
        let announce = async |length| {
            let id = setup.store.begin_upload(UploadSpec {
                repository: REPOSITORY.to_owned(),
                length_hint: Some(length),
                ..UploadSpec::default()
            });
            let id = id.expect("room for an upload");
            let mut upload = setup.open(id).await.expect("the upload exists");
            let sent = send(&mut upload, content(3, 10_000)).await;
            sent.map(|()| (id, upload))
        };
        let refused = announce(100 << 30).await.map(drop);
        let said = refused.expect_err("the length cannot fit").to_string();
        assert!(said.contains("107374182400 bytes were announced"), "{said}");
        let (id, mut upload) = announce(300_000).await.expect("the length may fit");
        assert_eq!(setup.offset(on_disk), Some(250_000));
        let whole = content(3, 300_000);
        send(&mut upload, whole.slice(10_000..))
            .await
            .expect("space is made");
        drop(upload);
        assert_eq!(setup.offset(on_disk), None);
        assert_eq!(setup.offset(in_memory), Some(1_000));

        // The last bytes, which finish the segment, find the disk full.
        let on_disk = setup.leave(content(4, 20_000)).await;
        disk.set_capacity(None);
        setup.wait().await;
        disk.set_capacity(Some(disk.used_bytes()));
        setup
            .finish_upload(id, &whole)
            .await
            .expect("space is made");
        assert_eq!(setup.offset(on_disk), None);
        assert_eq!(setup.offset(in_memory), Some(1_000));
        disk.set_capacity(None);
    });
}

/// Guards: a rollback evicts no upload, neither its own nor an idle one, for bytes that it discards and that found the
/// disk full.
#[test]
fn rolled_back_bytes_need_no_space() {
    let options = Options {
        spill_threshold_bytes: 100_000,
        ..check::options()
    };
    run(options, async |setup| {
        let idle = setup.leave(content(1, 250_000)).await;
        setup.wait().await;
        let whole = content(2, 500_000);
        let id = setup.begin().expect("room for an upload");
        let mut upload = setup.open(id).await.expect("the upload exists");
        let sent = send(&mut upload, whole.slice(..200_000)).await;
        sent.expect("a disk without faults");
        let before = upload.savepoint().await.expect("a place");
        // All kept bytes are on disk.
        setup.wait().await;
        let full = Fault::nth(OpKind::Write, 1).on(".segment");
        setup.machine.disk.add_fault(full.with_errno(ENOSPC));
        let sent = send(&mut upload, content(3, 64 << 10)).await;
        sent.expect("the write is in progress");
        upload
            .rollback(before)
            .await
            .expect("the rollback succeeds");
        drop(upload);
        assert_eq!(setup.offset(idle), Some(250_000));
        assert_eq!(setup.offset(id), Some(200_000));
        setup
            .finish_upload(id, &whole)
            .await
            .expect("the rest is sent");
    });
}

/// Guards: the space of rolled-back bytes is freed. Where that is impossible, it counts as the upload's.
#[test]
fn rolled_back_bytes_free_their_space() {
    run(check::options(), async |setup| {
        let disk = &setup.machine.disk;
        let smaller = setup.leave(content(1, 100_000)).await;
        setup.wait().await;
        let used = disk.used_bytes();
        let fail_close = async || {
            let id = setup.begin().expect("room for an upload");
            let mut upload = setup.open(id).await.expect("the upload exists");
            let before = upload.savepoint_of_close().await.expect("a place");
            send(&mut upload, content(2, 400_000))
                .await
                .expect("a disk without faults");
            let failed = upload.finish(digest(&content(3, 10)), Some(before)).await;
            assert!(matches!(failed, Err(Error::DigestMismatch { .. })));
            assert!(disk.used_bytes() > used + 390_000);
            id
        };
        let id = fail_close().await;
        setup.wait().await;
        assert_eq!(setup.offset(id), Some(0));
        assert!(disk.used_bytes() < used + 10_000, "the bytes stay on disk");

        disk.add_fault(Fault::percent(OpKind::SetLen, 100).on(".segment"));
        let id = fail_close().await;
        setup.wait().await;
        disk.clear_faults();
        // The longest idle is ended first.
        drop(setup.open(smaller).await.expect("the upload exists"));
        disk.set_capacity(Some(disk.used_bytes()));
        setup
            .push(&content(4, 300_000))
            .await
            .expect("space is made");
        assert_eq!(setup.offset(id), None);
        assert_eq!(setup.offset(smaller), Some(100_000));
        disk.set_capacity(None);
    });
}

/// Guards: an evicted upload leaves no file, also if the upload for which it was evicted found no place.
#[test]
fn an_upload_evicted_in_vain_leaves_nothing() {
    let mut left = Vec::new();
    let setup = Setup::start(Machine::new(1, &check::empty_disk()), check::options());
    setup.machine.executor.block_on(async {
        for salt in 0..3 {
            left.push(setup.leave(content(salt, 50_000)).await);
        }
        setup.store.close().await.expect("the store closes");
    });
    let options = Options {
        uploads_max: 1,
        ..check::options()
    };
    let setup = Setup::start(Machine::new(1, &setup.machine.disk.live_image()), options);
    setup.machine.executor.block_on(async {
        let held = [setup.open(left[0]).await, setup.open(left[1]).await];
        assert!(held.iter().all(Result::is_ok), "{held:?}");
        setup.wait().await;
        let refused = setup.begin();
        assert!(
            matches!(refused, Err(Error::TooManyUploads { .. })),
            "{refused:?}"
        );
        assert_eq!(setup.offset(left[2]), None);
        setup.wait().await;
        for directory in ["segments", "uploads"] {
            let directory = check::store_path().join(directory);
            let io = &setup.machine.env.io;
            let listed = io.list_dir(Class::Directory.call(), &directory).await;
            assert_eq!(listed.expect("listed").len(), 2, "{directory:?}");
        }
    });
}

/// Guards: an operation that was not attempted ends no upload. The request fails with an error that says so, and the
/// next one continues at the upload's offset.
#[test]
fn what_was_not_attempted_ends_no_upload() {
    let places = [
        (OpKind::Write, ".segment"),
        (OpKind::SyncData, ".segment"),
        (OpKind::SyncDir, "segments"),
        (OpKind::Create, ".segment"),
        (OpKind::Open, ".segment"),
        (OpKind::SetLen, ".segment"),
        (OpKind::Read, ".segment"),
        (OpKind::Write, ".upload"),
        (OpKind::Create, ".upload"),
        (OpKind::SyncDir, "uploads"),
    ];
    let refused = std::sync::atomic::AtomicU32::new(0);
    run(check::options(), async |setup| {
        for (salt, ((kind, place), nth)) in places
            .into_iter()
            .flat_map(|place| [1, 2, 3, 5].map(|nth| (place, nth)))
            .enumerate()
        {
            for length in [12_000, 400_000] {
                let whole = content(salt, length + salt);
                let id = setup.leave(whole.slice(..length / 2)).await;
                if nth > 1 {
                    // Suspended, so that its file has to be opened again.
                    setup.wait().await;
                }
                setup
                    .machine
                    .disk
                    .add_fault(Fault::nth(kind, nth).on(place).not_attempted());
                while let Err(error) = setup.finish_upload(id, &whole).await {
                    if kind == OpKind::Write && matches!(error, Error::Io { .. }) {
                        break; // a part was written before: that counts as attempted
                    }
                    let told = matches!(error, Error::NotAttempted { .. });
                    assert!(told, "{kind:?} {place} {nth}: {error}");
                    refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if setup.store.finished_upload(id, REPOSITORY).is_some() {
                        break; // only the lookup of the blob failed
                    }
                    assert!(
                        setup.offset(id).is_some(),
                        "{kind:?} {place} {nth}: the upload is gone"
                    );
                }
                setup.machine.disk.clear_faults();
                assert!(setup.store.poisoned().is_none());
            }
        }
    });
    let refused = refused.into_inner();
    assert!(refused > 20, "only {refused} requests were affected");
}

/// Guards: a request whose upload fails while it waits for its client, because the upload is suspended, gets that error
/// and not that there is no upload. Later requests find none.
#[test]
fn a_failed_suspension_is_reported_to_the_request() {
    run(check::options(), async |setup| {
        let whole = content(1, 400_000);
        let id = setup.begin().expect("there is room");
        let mut upload = setup.open(id).await.expect("the upload exists");
        let sent = send(&mut upload, whole.slice(..250_000)).await;
        sent.expect("the disk is sound");
        let interrupted = upload.interrupted();
        let fault = Fault::nth(OpKind::SyncData, 1).on(".segment");
        setup.machine.disk.add_fault(fault);
        setup.wait().await;
        let reported = interrupted.await;
        assert!(matches!(reported, Error::Io { .. }), "{reported}");
        let reported = send(&mut upload, whole.slice(250_000..)).await;
        assert!(matches!(reported, Err(Error::Io { .. })), "{reported:?}");
        drop(upload);
        let gone = setup.open(id).await.map(drop);
        assert!(matches!(gone, Err(Error::UnknownUpload)), "{gone:?}");
    });
}

/// Guards: a close under a wrong digest rolls its bytes back before another request gets the turn.
#[test]
fn a_failed_close_rolls_back_at_once() {
    run(check::options(), async |setup| {
        for length in [12_000, 400_000] {
            let whole = content(1, length);
            let id = setup.leave(whole.slice(..length / 2)).await;
            let close = UploadClaim {
                position: UploadPosition::End,
                ..UploadClaim::default()
            };
            let mut first = setup.open(id).await.expect("the upload exists");
            let before = first.savepoint_of_close().await.expect("a place");
            send(&mut first, content(2, 100_000))
                .await
                .expect("a disk without faults");
            let wrong = digest(&whole);
            let (failed, second) = futures_util::future::join(
                first.finish(wrong, Some(before)),
                setup.store.open_upload(id, REPOSITORY, close),
            )
            .await;
            assert!(matches!(failed, Err(Error::DigestMismatch { .. })));
            let mut second = second.expect("the upload exists");
            assert_eq!(second.offset(), length as u64 / 2);
            send(&mut second, whole.slice(length / 2..))
                .await
                .expect("its turn");
            let blob = second
                .finish(digest(&whole), None)
                .await
                .expect("the digest matches");
            setup.link(blob).await.expect("a disk without faults");
        }
    });
}

/// Guards: the next close decides, when it takes the turn, whether the bytes of a close without an answer are rolled
/// back. An offset reported after that changes nothing; one reported before keeps the bytes.
#[test]
fn a_close_sent_again_decides_when_it_takes_the_turn() {
    let close = UploadClaim {
        position: UploadPosition::End,
        ..UploadClaim::default()
    };
    run(check::options(), async |setup| {
        for (kept, asked_before) in [(0, false), (6_000, false), (6_000, true)] {
            let whole = content(kept, 400_000);
            let id = setup.leave(whole.slice(..kept)).await;
            let open = async || setup.store.open_upload(id, REPOSITORY, close).await;
            let mut older = open().await.expect("the upload exists");
            older.savepoint_of_close().await.expect("a place");
            let half = whole.slice(kept..200_000);
            send(&mut older, half).await.expect("a disk without faults");
            if asked_before {
                assert_eq!(setup.offset(id), Some(200_000));
            }
            let mut newer = open().await.expect("the request takes the turn");
            drop(older);
            assert_eq!(setup.offset(id), Some(200_000));
            newer.savepoint_of_close().await.expect("a place");
            let from = if asked_before { 200_000 } else { kept };
            assert_eq!(newer.offset(), from as u64);
            let rest = whole.slice(from..);
            send(&mut newer, rest).await.expect("a disk without faults");
            let blob = newer.finish(digest(&whole), None).await;
            setup
                .link(blob.expect("the digest matches"))
                .await
                .expect("a disk without faults");
        }
    });
}
