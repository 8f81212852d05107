//! Uploads to which nothing comes, and uploads that meet a shortage: what they hold, and who gives way.

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

const REPOSITORY: &str = "library/a";
const ENOSPC: i32 = 28;
/// Far more than an upload has to be quiet for.
const LONG: Duration = Duration::from_secs(5);

struct Bench {
    machine: Machine,
    store: Store,
}

fn run(options: Options, test: impl AsyncFn(&Bench)) {
    for seed in 1..=3 {
        let bench = Bench::start(Machine::new(seed, &check::empty_disk()), options.clone());
        bench.machine.executor.block_on(async {
            test(&bench).await;
            bench.store.close().await.expect("the store closes");
        });
        bench.machine.executor.settle();
        check::fsck_image(seed, &bench.machine.disk.live_image())
            .unwrap_or_else(|why| panic!("{why}"));
    }
}

/// Other bytes for each salt.
fn content(salt: usize, length: usize) -> Bytes {
    let bytes = (0..length).map(|at| (at % 241) as u8 ^ (at / 4096) as u8 ^ salt as u8);
    bytes.collect()
}

fn digest(whole: &Bytes) -> Digest {
    Digest::of(tonnage_engine::Algorithm::Sha256, whole)
}

impl Bench {
    fn start(machine: Machine, options: Options) -> Self {
        let store = machine.executor.block_on(async {
            let path = check::store_path();
            let opened = Store::open(machine.env.clone(), &path, options).await;
            opened.expect("the store opens").0
        });
        Self { machine, store }
    }

    fn begin(&self) -> Result<UploadId, Error> {
        self.begin_in(REPOSITORY)
    }

    fn begin_in(&self, repository: &str) -> Result<UploadId, Error> {
        self.store.begin_upload(UploadSpec {
            repository: repository.to_owned(),
            ..UploadSpec::default()
        })
    }

    async fn open(&self, id: UploadId) -> Result<Upload, Error> {
        let claim = UploadClaim::default();
        self.store.open_upload(id, REPOSITORY, claim).await
    }

    /// Sends a part and leaves the upload open.
    async fn leave(&self, part: Bytes) -> UploadId {
        let id = self.begin().expect("room for an upload");
        let mut upload = self.open(id).await.expect("it is there");
        send(&mut upload, part).await.expect("a sound disk");
        id
    }

    fn offset(&self, id: UploadId) -> Option<u64> {
        let status = self.store.upload_status(id, REPOSITORY);
        status.map(|status| status.offset)
    }

    /// Sends the rest, and links the blob that comes of it.
    async fn go_on(&self, id: UploadId, whole: &Bytes) -> Result<(), Error> {
        let mut upload = self.open(id).await?;
        let rest = whole.slice(usize::try_from(upload.offset()).expect("small")..);
        send(&mut upload, rest).await?;
        let blob = upload.finish(digest(whole), None).await?;
        self.link(blob).await?;
        let reader = self.store.open_blob(&digest(whole)).await?;
        let read = reader.expect("it is stored").read_whole(1 << 30).await?;
        assert!(read == *whole, "other bytes");
        Ok(())
    }

    async fn push(&self, whole: &Bytes) -> Result<(), Error> {
        let id = self.begin()?;
        self.go_on(id, whole).await
    }

    async fn link(&self, blob: FinishedBlob) -> Result<(), Error> {
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
            .expect("it is stored")
            .extent
            .layout
    }

    async fn wait(&self) {
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

async fn send(upload: &mut Upload, mut bytes: Bytes) -> Result<(), Error> {
    while !bytes.is_empty() {
        upload
            .write(bytes.split_to(bytes.len().min(30_011)))
            .await?;
    }
    Ok(())
}

/// Guards: uploads to which nothing comes give back memory and descriptors after a few seconds, and go on from where
/// they were; so do those of requests that only wait for their client.
#[test]
fn quiet_uploads_hold_nothing() {
    run(check::options(), async |bench| {
        let open = bench.machine.disk.open_files();
        // As much as the budget has; then nothing more fits into memory.
        let small: Vec<_> = (0..16).map(|salt| content(salt, 64 << 10)).collect();
        let mut left = Vec::new();
        for whole in &small {
            left.push(bench.leave(whole.slice(..60_000)).await);
        }
        let large = content(99, 300_000);
        let id = bench.begin().expect("room");
        let mut stalled = bench.open(id).await.expect("it is there");
        send(&mut stalled, large.slice(..250_000))
            .await
            .expect("a sound disk");
        bench.wait().await;
        assert_eq!(bench.machine.disk.open_files(), open);
        let created = bench.segments_created();
        let more = content(100, 90_000);
        bench.leave(more).await;
        assert_eq!(
            bench.segments_created(),
            created,
            "memory was not given back"
        );
        send(&mut stalled, large.slice(250_000..))
            .await
            .expect("a sound disk");
        let blob = stalled
            .finish(digest(&large), None)
            .await
            .expect("it is whole");
        bench.link(blob).await.expect("a sound disk");
        for (id, whole) in left.into_iter().zip(&small) {
            assert_eq!(bench.offset(id), Some(60_000));
            bench.go_on(id, whole).await.expect("it goes on");
            assert_eq!(
                bench.layout(whole).await,
                Layout::Leading,
                "small blobs share segments"
            );
        }
    });
}

/// Guards: a small push goes into a shared segment also where idle uploads have used up the memory for uploads.
#[test]
fn small_pushes_share_segments_when_memory_is_short() {
    run(check::options(), async |bench| {
        for salt in 0..16 {
            bench.leave(content(salt, 65_000)).await;
        }
        for salt in 0..4 {
            let whole = content(200 + salt, 12_000);
            bench.push(&whole).await.expect("a sound disk");
            assert_eq!(bench.layout(&whole).await, Layout::Leading);
        }
    });
}

/// Guards: uploads have at most three quarters of the files that may be open, wait for each other, and all get on.
#[test]
fn uploads_have_a_share_of_open_files() {
    let options = Options {
        open_files_max: 8,
        ..check::options()
    };
    run(options, async |bench| {
        let open = bench.machine.disk.open_files();
        let whole: Vec<_> = (0..12).map(|salt| content(salt, 400_000)).collect();
        let mut left = Vec::new();
        for whole in &whole {
            let id = bench.begin().expect("room");
            let mut upload = bench.open(id).await.expect("it is there");
            send(&mut upload, whole.slice(..200_000))
                .await
                .expect("a sound disk");
            // Four segments, and two logs of those that are put away just now.
            assert!(bench.machine.disk.open_files() <= open + 6);
            // Half of the requests only wait for their client.
            left.push((id, (left.len() % 2 == 0).then_some(upload)));
        }
        for ((id, upload), whole) in left.into_iter().zip(&whole) {
            drop(upload);
            bench.go_on(id, whole).await.expect("it goes on");
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
    run(options, async |bench| {
        let done = AtomicBool::new(false);
        let trickle = async |salt: usize| {
            let id = bench.leave(content(salt, 200_000)).await;
            let mut upload = bench.open(id).await.expect("it is there");
            for _ in 0..300 {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let bit = send(&mut upload, content(salt, 100)).await;
                bit.expect("a sound disk");
                let pause = Duration::from_millis(100);
                bench.machine.env.clock.sleep(pause).await;
            }
            panic!("nobody else got on");
        };
        let push = async {
            bench.wait().await;
            for salt in 0..3 {
                let whole = content(50 + salt, 400_000);
                bench.push(&whole).await.expect("it gets on");
            }
            done.store(true, Ordering::Relaxed);
        };
        join(join_all((0..4).map(trickle)), push).await;
    });
}

/// Guards: uploads that need a descriptor to be put away do not stop those that would give one back.
#[test]
fn stalled_uploads_give_descriptors_back() {
    let options = Options {
        open_files_max: 8,
        ..check::options()
    };
    run(options, async |bench| {
        let mut stalled = Vec::new();
        for salt in 0..12 {
            let id = bench.leave(content(salt, 200_000)).await;
            stalled.push(bench.open(id).await.expect("it is there"));
        }
        bench.wait().await;
        for upload in &mut stalled {
            let part = send(upload, content(0, 100)).await;
            part.expect("it stays in memory");
        }
        for salt in 20..24 {
            bench.leave(content(salt, 200_000)).await;
        }
        bench.wait().await;
        let whole = content(50, 400_000);
        bench.push(&whole).await.expect("it gets on");
    });
}

/// Guards: a stop for which there are no descriptors is a clean one.
#[test]
fn a_stop_without_descriptors_is_clean() {
    run(check::options(), async |bench| {
        bench.leave(content(1, 12_000)).await;
        let disk = &bench.machine.disk;
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
    run(check::options(), async |bench| {
        // Idle and partly on disk, and with bytes in memory only.
        let id = bench.leave(content(1, 250_000)).await;
        bench.wait().await;
        let mut upload = bench.open(id).await.expect("it is there");
        let sent = send(&mut upload, content(2, 10_000)).await;
        sent.expect("it stays in memory");
        bench.leave(content(3, 12_000)).await;
        for nth in 1..8 {
            let full = Fault::nth(OpKind::Write, nth).on(".segment");
            bench.machine.disk.add_fault(full.with_errno(ENOSPC));
        }
    });
}

/// Guards: bytes for which there was no memory and then no descriptor do not stay in memory: they are put away, too.
#[test]
fn bytes_beyond_the_budget_are_suspended() {
    run(check::options(), async |bench| {
        let id = bench.leave(content(1, 300_000)).await;
        bench.wait().await;
        for salt in 0..14 {
            bench.leave(content(salt, 60_000)).await;
        }
        let disk = &bench.machine.disk;
        disk.add_fault(Fault::nth(OpKind::Open, 1).on(".segment").not_attempted());
        let mut upload = bench.open(id).await.expect("it is there");
        let refused = send(&mut upload, content(2, 10_000)).await;
        assert!(
            matches!(refused, Err(Error::NotAttempted { .. })),
            "{refused:?}"
        );
        drop(upload);
        assert_eq!(bench.offset(id), Some(310_000));
        let opened = |bench: &Bench| {
            let is_segment =
                |path: &std::path::Path| path.extension().is_some_and(|end| end == "segment");
            let log = bench.machine.disk.log();
            log.iter()
                .filter(|op| op.kind == OpKind::Open && is_segment(&op.path))
                .count()
        };
        let before = opened(bench);
        bench.wait().await;
        assert!(opened(bench) > before, "the bytes stay in memory");
    });
}

/// Guards: on a full disk the uploads that were idle for the longest time give way to those that go on, one at a
/// time; one that a request holds does not, and one that was used a moment ago is waited for, as its client may have begun anew.
#[test]
fn idle_uploads_give_way_on_a_full_disk() {
    let options = Options {
        reserve_bytes: 64 << 10,
        ..check::options()
    };
    run(options, async |bench| {
        let part = || content(1, 250_000);
        let held = bench.leave(part()).await;
        let holder = bench.open(held).await.expect("it is there");
        let first = bench.leave(part()).await;
        bench.wait().await;
        let second = bench.leave(part()).await;
        bench.wait().await;
        let used = bench.machine.disk.used_bytes();
        bench.machine.disk.set_capacity(Some(used + 250_000));
        let whole = content(7, 400_000);
        bench.push(&whole).await.expect("the first gives way");
        assert_eq!(bench.offset(first), None);
        assert_eq!(bench.offset(second), Some(250_000));
        let unknown = bench.open(first).await.map(drop);
        assert!(matches!(unknown, Err(Error::UnknownUpload)), "{unknown:?}");

        // Used a moment ago.
        drop(bench.open(second).await.expect("it is there"));
        let clock = &bench.machine.env.clock;
        let (used, before) = (bench.machine.disk.used_bytes(), clock.monotonic());
        bench.machine.disk.set_capacity(Some(used + 200_000));
        let pushed = bench.push(&content(8, 400_000)).await;
        pushed.expect("the second gives way");
        assert_eq!(bench.offset(second), None);
        assert!(clock.monotonic() - before >= Duration::from_secs(2));
        let full = bench.push(&content(9, 400_000)).await;
        assert!(matches!(full, Err(Error::NoSpace { .. })), "{full:?}");
        drop(holder);
        assert_eq!(bench.offset(held), Some(250_000));
        bench.machine.disk.set_capacity(None);
    });
}

/// Guards: an upload whose next request waits for a step that is under way, such as writing to disk what it held, is in
/// use: no other upload takes its place.
#[test]
fn an_upload_with_a_request_waiting_is_in_use() {
    let options = Options {
        uploads_max: 1,
        ..check::options()
    };
    run(options, async |bench| {
        let written = Arc::new(Notify::new());
        let signal = Arc::clone(&written);
        bench.machine.disk.watch(move |_| signal.notify_one());
        let id = bench.leave(content(1, 10_000)).await;
        let opening = loop {
            written.notified().await;
            let mut opening = Box::pin(bench.open(id));
            match opening.as_mut().now_or_never() {
                None => break opening,
                // Came too late: it holds something again, which will be written.
                Some(upload) => {
                    let mut upload = upload.expect("it is there");
                    send(&mut upload, content(1, 10))
                        .await
                        .expect("a sound disk");
                }
            }
        };
        bench.machine.disk.unwatch();
        let other = bench.begin_in("library/b");
        assert!(
            matches!(other, Err(Error::TooManyUploads { .. })),
            "{other:?}"
        );
        drop(opening.await.expect("it is there"));
        bench
            .begin_in("library/b")
            .expect("it is not in use any more");
    });
}

/// Guards: on a full disk an upload is ended only for bytes that a request writes, and only one that has bytes on disk:
/// not for a length that is announced, nor to write what idle uploads hold in memory; a length that cannot fit is
/// refused.
#[test]
fn space_is_made_for_bytes_that_are_written() {
    run(check::options(), async |bench| {
        let disk = &bench.machine.disk;
        let on_disk = bench.leave(content(1, 250_000)).await;
        bench.wait().await;
        disk.set_capacity(Some(disk.used_bytes()));
        let in_memory = bench.leave(content(2, 1_000)).await;
        bench.wait().await;
        assert_eq!(bench.offset(on_disk), Some(250_000));
        assert_eq!(bench.offset(in_memory), Some(1_000));

        disk.set_capacity(Some(disk.used_bytes() + 100_000));
        let announce = async |length| {
            let id = bench.store.begin_upload(UploadSpec {
                repository: REPOSITORY.to_owned(),
                length_hint: Some(length),
                ..UploadSpec::default()
            });
            let id = id.expect("room for an upload");
            let mut upload = bench.open(id).await.expect("it is there");
            let sent = send(&mut upload, content(3, 10_000)).await;
            sent.map(|()| (id, upload))
        };
        let refused = announce(100 << 30).await.map(drop);
        let said = refused.expect_err("it cannot fit").to_string();
        assert!(said.contains("107374182400 bytes were announced"), "{said}");
        let (id, mut upload) = announce(300_000).await.expect("it may fit");
        assert_eq!(bench.offset(on_disk), Some(250_000));
        let whole = content(3, 300_000);
        send(&mut upload, whole.slice(10_000..))
            .await
            .expect("space is made");
        drop(upload);
        assert_eq!(bench.offset(on_disk), None);
        assert_eq!(bench.offset(in_memory), Some(1_000));

        // The last bytes, which finish the segment, find it full.
        let on_disk = bench.leave(content(4, 20_000)).await;
        disk.set_capacity(None);
        bench.wait().await;
        disk.set_capacity(Some(disk.used_bytes()));
        bench.go_on(id, &whole).await.expect("space is made");
        assert_eq!(bench.offset(on_disk), None);
        assert_eq!(bench.offset(in_memory), Some(1_000));
        disk.set_capacity(None);
    });
}

/// Guards: a request that goes back ends no upload, neither its own nor an idle one, for bytes that it takes back and
/// that found the disk full.
#[test]
fn bytes_that_are_taken_back_need_no_space() {
    let options = Options {
        spill_threshold_bytes: 100_000,
        ..check::options()
    };
    run(options, async |bench| {
        let idle = bench.leave(content(1, 250_000)).await;
        bench.wait().await;
        let whole = content(2, 500_000);
        let id = bench.begin().expect("room for an upload");
        let mut upload = bench.open(id).await.expect("it is there");
        let sent = send(&mut upload, whole.slice(..200_000)).await;
        sent.expect("a sound disk");
        let before = upload.savepoint().await.expect("a place");
        // All that is kept is on disk.
        bench.wait().await;
        let full = Fault::nth(OpKind::Write, 1).on(".segment");
        bench.machine.disk.add_fault(full.with_errno(ENOSPC));
        let sent = send(&mut upload, content(3, 64 << 10)).await;
        sent.expect("the write is under way");
        upload.rollback(before).await.expect("it goes back");
        drop(upload);
        assert_eq!(bench.offset(idle), Some(250_000));
        assert_eq!(bench.offset(id), Some(200_000));
        bench.go_on(id, &whole).await.expect("the rest is sent");
    });
}

/// Guards: the space of bytes that were taken back is given back; where it cannot be, it counts as the upload's.
#[test]
fn bytes_that_were_taken_back_free_their_space() {
    run(check::options(), async |bench| {
        let disk = &bench.machine.disk;
        let smaller = bench.leave(content(1, 100_000)).await;
        bench.wait().await;
        let used = disk.used_bytes();
        let fail_close = async || {
            let id = bench.begin().expect("room for an upload");
            let mut upload = bench.open(id).await.expect("it is there");
            let before = upload.savepoint_of_close().await.expect("a place");
            send(&mut upload, content(2, 400_000))
                .await
                .expect("a sound disk");
            let failed = upload.finish(digest(&content(3, 10)), Some(before)).await;
            assert!(matches!(failed, Err(Error::DigestMismatch { .. })));
            assert!(disk.used_bytes() > used + 390_000);
            id
        };
        let id = fail_close().await;
        bench.wait().await;
        assert_eq!(bench.offset(id), Some(0));
        assert!(disk.used_bytes() < used + 10_000, "the bytes stay on disk");

        disk.add_fault(Fault::percent(OpKind::SetLen, 100).on(".segment"));
        let id = fail_close().await;
        bench.wait().await;
        disk.clear_faults();
        disk.set_capacity(Some(disk.used_bytes()));
        bench
            .push(&content(4, 300_000))
            .await
            .expect("space is made");
        assert_eq!(bench.offset(id), None);
        assert_eq!(bench.offset(smaller), Some(100_000));
        disk.set_capacity(None);
    });
}

/// Guards: an upload that was ended for another one leaves no file, also where the other one found no place even so.
#[test]
fn an_upload_that_was_ended_in_vain_leaves_nothing() {
    let mut left = Vec::new();
    let bench = Bench::start(Machine::new(1, &check::empty_disk()), check::options());
    bench.machine.executor.block_on(async {
        for salt in 0..3 {
            left.push(bench.leave(content(salt, 50_000)).await);
        }
        bench.store.close().await.expect("the store closes");
    });
    let options = Options {
        uploads_max: 1,
        ..check::options()
    };
    let bench = Bench::start(Machine::new(1, &bench.machine.disk.live_image()), options);
    bench.machine.executor.block_on(async {
        let held = [bench.open(left[0]).await, bench.open(left[1]).await];
        assert!(held.iter().all(Result::is_ok), "{held:?}");
        bench.wait().await;
        let refused = bench.begin();
        assert!(
            matches!(refused, Err(Error::TooManyUploads { .. })),
            "{refused:?}"
        );
        assert_eq!(bench.offset(left[2]), None);
        bench.wait().await;
        for directory in ["segments", "uploads"] {
            let directory = check::store_path().join(directory);
            let io = &bench.machine.env.io;
            let listed = io.list_dir(Class::Directory.call(), &directory).await;
            assert_eq!(listed.expect("listed").len(), 2, "{directory:?}");
        }
    });
}

/// Guards: an operation that was not attempted, whichever it is, ends no upload: the request fails with an error that
/// says so, and the next one goes on at the offset that the upload tells.
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
    run(check::options(), async |bench| {
        for (salt, ((kind, place), nth)) in places
            .into_iter()
            .flat_map(|place| [1, 2, 3, 5].map(|nth| (place, nth)))
            .enumerate()
        {
            for length in [12_000, 400_000] {
                let whole = content(salt, length + salt);
                let id = bench.leave(whole.slice(..length / 2)).await;
                if nth > 1 {
                    // Put away, so that its file has to be opened again.
                    bench.wait().await;
                }
                bench
                    .machine
                    .disk
                    .add_fault(Fault::nth(kind, nth).on(place).not_attempted());
                while let Err(error) = bench.go_on(id, &whole).await {
                    if kind == OpKind::Write && matches!(error, Error::Io { .. }) {
                        break; // a part was written before: that counts as attempted
                    }
                    let told = matches!(error, Error::NotAttempted { .. });
                    assert!(told, "{kind:?} {place} {nth}: {error}");
                    refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if bench.store.finished_upload(id, REPOSITORY).is_some() {
                        break; // only the look at the blob failed
                    }
                    assert!(
                        bench.offset(id).is_some(),
                        "{kind:?} {place} {nth}: the upload is gone"
                    );
                }
                bench.machine.disk.clear_faults();
                assert!(bench.store.poisoned().is_none());
            }
        }
    });
    let refused = refused.into_inner();
    assert!(refused > 20, "only {refused} requests met one");
}

/// Guards: a close under a wrong digest takes its bytes back before another request comes in.
#[test]
fn a_failed_close_takes_its_bytes_back_at_once() {
    run(check::options(), async |bench| {
        for length in [12_000, 400_000] {
            let whole = content(1, length);
            let id = bench.leave(whole.slice(..length / 2)).await;
            let close = UploadClaim {
                position: UploadPosition::End,
                ..UploadClaim::default()
            };
            let mut first = bench.open(id).await.expect("it is there");
            let before = first.savepoint_of_close().await.expect("a place");
            send(&mut first, content(2, 100_000))
                .await
                .expect("a sound disk");
            let wrong = digest(&whole);
            let (failed, second) = futures_util::future::join(
                first.finish(wrong, Some(before)),
                bench.store.open_upload(id, REPOSITORY, close),
            )
            .await;
            assert!(matches!(failed, Err(Error::DigestMismatch { .. })));
            let mut second = second.expect("it is there");
            assert_eq!(second.offset(), length as u64 / 2);
            send(&mut second, whole.slice(length / 2..))
                .await
                .expect("its turn");
            let blob = second
                .finish(digest(&whole), None)
                .await
                .expect("it is whole");
            bench.link(blob).await.expect("a sound disk");
        }
    });
}

/// Guards: whether the bytes of a close without an answer are taken back is decided when the next close takes the upload: an
/// offset that is named between then and its first byte changes nothing; one that was named before keeps them.
#[test]
fn a_close_sent_again_decides_when_it_takes_over() {
    let close = UploadClaim {
        position: UploadPosition::End,
        ..UploadClaim::default()
    };
    run(check::options(), async |bench| {
        for (kept, asked_before) in [(0, false), (6_000, false), (6_000, true)] {
            let whole = content(kept, 400_000);
            let id = bench.leave(whole.slice(..kept)).await;
            let open = async || bench.store.open_upload(id, REPOSITORY, close).await;
            let mut older = open().await.expect("it is there");
            older.savepoint_of_close().await.expect("a place");
            let half = whole.slice(kept..200_000);
            send(&mut older, half).await.expect("a sound disk");
            if asked_before {
                assert_eq!(bench.offset(id), Some(200_000));
            }
            let mut newer = open().await.expect("it takes over");
            drop(older);
            assert_eq!(bench.offset(id), Some(200_000));
            newer.savepoint_of_close().await.expect("a place");
            let from = if asked_before { 200_000 } else { kept };
            assert_eq!(newer.offset(), from as u64);
            let rest = whole.slice(from..);
            send(&mut newer, rest).await.expect("a sound disk");
            let blob = newer.finish(digest(&whole), None).await;
            bench
                .link(blob.expect("it is whole"))
                .await
                .expect("a sound disk");
        }
    });
}
