//! Tests of uploads on a real file system: every way to push, every way to stop half-way.

#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the files themselves"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::workbench::{REPOSITORY, Workbench, content, eventually, run, small_options, write};
use crate::digest::{Algorithm, Digest};
use crate::error::Error;
use crate::extent::{Extent, Layout};
use crate::finished_blob::FinishedBlob;
use crate::limits::SMALL_CONTENT_BYTES;
use crate::options::Options;
use crate::vocabulary::{ClientId, UploadClaim, UploadId, UploadSpec};

const CHUNK: usize = 64 << 10;
const WINDOW: usize = 128 << 10;
const THRESHOLD: usize = 512 << 10;

async fn push(bench: &Workbench, bytes: &[u8], piece: usize, digest: Digest) -> FinishedBlob {
    let mut upload = bench.upload(bench.begin(digest.algorithm())).await;
    write(&mut upload, bytes, piece).await;
    assert_eq!(upload.offset(), bytes.len() as u64);
    upload.finish(digest, None).await.unwrap()
}

async fn assert_reads(bench: &Workbench, digest: Digest, extent: Extent, bytes: &[u8]) {
    assert_eq!(
        bench.read(digest, extent, 0..u64::MAX).await.unwrap(),
        bytes,
        "{digest}"
    );
}

/// Waits until `directory` holds `count` names; removals run in the background.
async fn settled(bench: &Workbench, directory: &str, count: usize) {
    let what = format!("{count} files in {directory}");
    eventually(&what, || bench.names(directory).len() == count).await;
}

/// Guards: sizes around chunk, window and threshold, in small and large pieces, under each algorithm, are read back as
/// they were sent. Small ones share a segment, large ones have their own, and no session is left.
#[test]
fn sizes_come_back() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        let around = |n: usize| [n - 1, n, n + 1];
        let sizes = [
            vec![0, 1],
            around(CHUNK).to_vec(),
            around(WINDOW).to_vec(),
            around(THRESHOLD).to_vec(),
        ];
        for (seed, size) in sizes.concat().into_iter().chain([5 << 20]).enumerate() {
            let bytes = content(seed as u64, size);
            for (algorithm, piece) in [
                (Algorithm::Sha256, 1500),
                (Algorithm::Sha512, 70_001),
                (Algorithm::Blake3, 3 << 20),
            ] {
                let digest = Digest::of(algorithm, &bytes);
                let blob = push(&bench, &bytes, piece, digest).await;
                let large = blob.extent().layout == Layout::Trailing;
                assert_eq!((blob.length(), large), (size as u64, size > THRESHOLD));
                assert!(bench.leases.holds(&digest), "a finished blob is pinned");
                assert_reads(&bench, digest, blob.extent(), &bytes).await;
            }
        }
        assert!(bench.uploads.len() == 0);
        settled(&bench, "uploads", 0).await;
    });
}

/// Guards: a dedicated segment that no commit claims is removed, and its pin with it.
#[test]
fn an_unclaimed_blob_leaves_nothing() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        let bytes = content(1, 2 << 20);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let blob = push(&bench, &bytes, 100_000, digest).await;
        assert_eq!(bench.names("segments").len(), 1);
        drop(blob);
        assert!(!bench.leases.holds(&digest));
        settled(&bench, "segments", 0).await;
    });
}

/// Guards: a wrong digest is reported and changes nothing: the upload can continue to the right one.
#[test]
fn a_wrong_digest_does_not_end_the_upload() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        for size in [1000, 2 << 20] {
            let bytes = content(7, size);
            let (right, wrong) = (
                Digest::of(Algorithm::Sha256, &bytes),
                Digest::of(Algorithm::Sha256, b"else"),
            );
            let id = bench.begin(Algorithm::Sha256);
            let mut upload = bench.upload(id).await;
            let (head, tail) = bytes.split_at(size / 2);
            write(&mut upload, head, 9000).await;
            let error = upload.finish(wrong, None).await.unwrap_err();
            let found = Digest::of(Algorithm::Sha256, head);
            assert!(
                matches!(error, Error::DigestMismatch { expected, found: f } if expected == wrong && f == found)
            );
            drop(upload);
            assert_eq!(
                bench.uploads.status(id, REPOSITORY).unwrap().offset,
                head.len() as u64
            );
            let mut upload = bench.upload(id).await;
            write(&mut upload, tail, 9000).await;
            let blob = upload.finish(right, None).await.unwrap();
            assert_reads(&bench, right, blob.extent(), &bytes).await;
            drop(blob);
            assert!(bench.uploads.status(id, REPOSITORY).is_none());
        }
    });
}

/// Guards: an upload that is closed under another algorithm than the running one is read again, from memory or disk,
/// and is correct. A wrong digest of that algorithm is rejected.
#[test]
fn closing_under_another_algorithm_reads_again() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        for size in [0, 1000, 300_000, 3 * (1 << 20) + 17] {
            let bytes = content(8, size);
            for algorithm in [Algorithm::Sha512, Algorithm::Blake3] {
                let mut upload = bench.upload(bench.begin(Algorithm::Sha256)).await;
                write(&mut upload, &bytes, 50_000).await;
                assert!(
                    upload
                        .finish(Digest::of(algorithm, b"else"), None)
                        .await
                        .is_err()
                );
                let digest = Digest::of(algorithm, &bytes);
                let blob = upload.finish(digest, None).await.unwrap();
                assert_reads(&bench, digest, blob.extent(), &bytes).await;
            }
        }
    });
}

/// Guards: after a rollback the upload is what it was at the savepoint, wherever savepoint and end are: in memory,
/// across the spill, across upload checkpoints, at odd offsets.
#[test]
fn rollback_forgets_what_came_after() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        for (kept, lost) in [
            (0, 10),
            (10, 3000),
            (WINDOW + 3, WINDOW),
            (1000, 2 << 20),
            (3 << 20, (2 << 20) + 77),
        ] {
            let (bytes, junk, tail) = (content(1, kept), content(2, lost), content(3, 200_000));
            let id = bench.begin(Algorithm::Sha256);
            let mut upload = bench.upload(id).await;
            write(&mut upload, &bytes, 33_333).await;
            for _ in 0..2 {
                let savepoint = upload.savepoint().await.unwrap();
                write(&mut upload, &junk, 44_444).await;
                upload.rollback(savepoint).await.unwrap();
                assert_eq!(upload.offset(), kept as u64);
            }
            write(&mut upload, &tail, 55_555).await;
            let whole = [bytes, tail].concat();
            let digest = Digest::of(Algorithm::Sha256, &whole);
            let blob = upload.finish(digest, None).await.unwrap();
            assert_reads(&bench, digest, blob.extent(), &whole).await;
        }
    });
}

/// Kills the store: nothing is closed, everything in memory is gone.
fn kill(bench: Workbench) {
    drop(bench);
}

async fn resume(dir: &std::path::Path, first_id: u64) -> Workbench {
    let bench = Workbench::open(dir, first_id, &small_options()).await;
    bench.uploads.resume(&|_| false).await.unwrap();
    bench
}

/// Guards: after a kill an upload continues from its last upload checkpoint and reports that offset. Its segment is
/// listed as in use. The resulting blob is correct, also after a second kill and for a hash without mid-state.
#[test]
fn a_killed_upload_continues_from_its_checkpoint() {
    run(|dir| async move {
        for (round, algorithm) in Algorithm::ALL.into_iter().enumerate() {
            let first_id = 1000 * (round as u64 + 1);
            let bytes = content(4, (5 << 20) + 12_345);
            let bench = Workbench::open(dir.path(), first_id, &small_options()).await;
            let id = bench.begin(algorithm);
            let mut upload = bench.upload(id).await;
            write(&mut upload, &bytes[..3 << 20], 10_007).await;
            drop(upload);
            kill(bench);
            for restart in 1..3 {
                let bench =
                    Workbench::open(dir.path(), first_id + restart * 10, &small_options()).await;
                let kept = bench.uploads.resume(&|_| false).await.unwrap();
                assert_eq!(kept.iter().map(|id| id.0).collect::<Vec<_>>(), [first_id]);
                let offset =
                    usize::try_from(bench.uploads.status(id, REPOSITORY).unwrap().offset).unwrap();
                assert!(offset >= 1 << 20, "{algorithm:?}: resumed at {offset}");
                let mut upload = bench.upload(id).await;
                assert_eq!(
                    (upload.offset(), upload.algorithm()),
                    (offset as u64, algorithm)
                );
                let end = if restart == 1 {
                    bytes.len() - 100_000
                } else {
                    bytes.len()
                };
                write(&mut upload, &bytes[offset..end], 65_000).await;
                if restart == 2 {
                    let digest = Digest::of(algorithm, &bytes);
                    let blob = upload.finish(digest, None).await.unwrap();
                    assert_reads(&bench, digest, blob.extent(), &bytes).await;
                    drop(blob);
                    settled(&bench, "uploads", 0).await;
                    settled(&bench, "segments", 0).await;
                }
                drop(upload);
                kill(bench);
            }
        }
    });
}

/// Guards: a clean stop loses no byte of any upload, not even of one that was in memory.
#[test]
fn a_clean_stop_keeps_every_byte() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        let mut ids = Vec::new();
        for (seed, size) in [(1, 0), (2, 10), (3, 100_001), (4, (2 << 20) + 5)] {
            let id = bench.begin(Algorithm::Sha256);
            write(&mut bench.upload(id).await, &content(seed, size), 30_000).await;
            ids.push((seed, size, id));
        }
        bench.uploads.checkpoint_all().await.unwrap();
        drop(bench);
        let bench = resume(dir.path(), 100).await;
        for (seed, size, id) in ids {
            if size == 0 {
                assert!(bench.uploads.status(id, REPOSITORY).is_none());
                continue;
            }
            let mut upload = bench.upload(id).await;
            assert_eq!(upload.offset(), size as u64);
            write(&mut upload, &content(9, 999), 999).await;
            let whole = [content(seed, size), content(9, 999)].concat();
            let digest = Digest::of(Algorithm::Sha256, &whole);
            let blob = upload.finish(digest, None).await.unwrap();
            assert_reads(&bench, digest, blob.extent(), &whole).await;
        }
    });
}

/// Guards: bytes that were rolled back are not there after a restart.
#[test]
fn a_rollback_holds_across_a_kill() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        let id = bench.begin(Algorithm::Sha256);
        let mut upload = bench.upload(id).await;
        write(&mut upload, &content(1, 100_000), 100_000).await;
        let savepoint = upload.savepoint().await.unwrap();
        write(&mut upload, &content(2, 4 << 20), 100_000).await;
        upload.rollback(savepoint).await.unwrap();
        drop(upload);
        kill(bench);
        let bench = resume(dir.path(), 100).await;
        let offset = bench
            .uploads
            .status(id, REPOSITORY)
            .map_or(0, |status| status.offset);
        assert!(offset <= 100_000, "{offset} bytes came back");
    });
}

/// Guards: a log that outlived its upload's commit does not touch the committed segment, and is removed.
#[test]
fn a_committed_segment_is_never_resumed() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        let bytes = content(5, 3 << 20);
        let id = bench.begin(Algorithm::Sha256);
        write(&mut bench.upload(id).await, &bytes, 100_000).await;
        bench.uploads.checkpoint_all().await.unwrap();
        let log = dir.path().join("uploads").join(format!("{id}.upload"));
        let kept = std::fs::read(&log).unwrap();
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let blob = bench.upload(id).await.finish(digest, None).await.unwrap();
        let extent = blob.extent();
        settled(&bench, "uploads", 0).await;
        // The commit kept the segment; the log's removal was lost in the crash.
        let path = bench.segment_path(extent.segment);
        let copy = std::fs::read(&path).unwrap();
        drop(blob);
        settled(&bench, "segments", 0).await;
        kill(bench);
        std::fs::write(&path, copy).unwrap();
        std::fs::write(&log, kept).unwrap();
        let bench = Workbench::open(dir.path(), 100, &small_options()).await;
        let in_use = bench
            .uploads
            .resume(&|segment| segment == extent.segment)
            .await
            .unwrap();
        assert!(in_use.is_empty() && bench.uploads.len() == 0);
        assert_reads(&bench, digest, extent, &bytes).await;
        assert_eq!(bench.names("uploads"), Vec::<String>::new());
    });
}

/// Guards: rot in the bytes of a resumed upload that must be hashed again ends it; it is never finished.
#[test]
fn rot_under_a_resumed_upload_ends_it() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        let bytes = content(6, 2 << 20);
        let id = bench.begin(Algorithm::Blake3);
        write(&mut bench.upload(id).await, &bytes, 100_000).await;
        bench.uploads.checkpoint_all().await.unwrap();
        let path = bench.dir.join("segments").join(&bench.names("segments")[0]);
        kill(bench);
        let mut raw = std::fs::read(&path).unwrap();
        raw[4096 + 700_000] ^= 1;
        std::fs::write(&path, raw).unwrap();
        let bench = resume(dir.path(), 100).await;
        let mut upload = bench.upload(id).await;
        let error = upload
            .finish(Digest::of(Algorithm::Blake3, &bytes), None)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
        drop(upload);
        assert!(bench.uploads.status(id, REPOSITORY).is_none());
    });
}

/// Guards: a cancel does not wait for the request that writes: the upload is gone at once, and the writer leaves no
/// file and makes no blob of it.
#[test]
fn a_cancel_does_not_wait_for_the_writer() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        let (large, small) = (content(1, 3 << 20), content(2, 1000));
        for (bytes, finishes) in [(&large, false), (&large, true), (&small, true)] {
            let id = bench.begin(Algorithm::Sha256);
            let mut upload = bench.upload(id).await;
            write(&mut upload, bytes, 100_000).await;
            bench.uploads.cancel(id, REPOSITORY).unwrap();
            assert!(bench.uploads.status(id, REPOSITORY).is_none());
            let again = bench.uploads.cancel(id, REPOSITORY);
            assert!(matches!(again, Err(Error::UnknownUpload)));
            let refused = if finishes {
                let digest = Digest::of(Algorithm::Sha256, bytes);
                upload.finish(digest, None).await.map(drop)
            } else {
                upload.write(Bytes::from_static(b"more")).await
            };
            assert!(matches!(refused, Err(Error::UnknownUpload)));
            drop(upload);
            settled(&bench, "segments", 0).await;
            settled(&bench, "uploads", 0).await;
        }
    });
}

/// Guards: one writer at a time; other repositories do not see the upload; cancel and expiry leave no file.
#[test]
fn sessions_are_exclusive_private_and_end_without_trace() {
    run(|dir| async move {
        let options = Options {
            uploads_max: 2,
            upload_ttl: Duration::from_mins(1),
            ..small_options()
        };
        let bench = Workbench::open(dir.path(), 1, &options).await;
        let (first, second) = (
            bench.begin(Algorithm::Sha256),
            bench.begin(Algorithm::Sha256),
        );
        let spec = UploadSpec {
            repository: REPOSITORY.to_owned(),
            ..UploadSpec::default()
        };
        assert!(matches!(
            bench.uploads.begin(spec.clone()),
            Err(Error::TooManyUploads { max: 2 })
        ));
        let mut upload = bench.upload(first).await;
        assert!(matches!(
            bench
                .uploads
                .open(first, REPOSITORY, UploadClaim::default())
                .await,
            Err(Error::UploadBusy)
        ));
        assert!(matches!(
            bench
                .uploads
                .open(first, "other", UploadClaim::default())
                .await,
            Err(Error::UnknownUpload)
        ));
        assert!(bench.uploads.status(first, "other").is_none());
        let unknown = UploadId::from_random([7; 16]);
        assert!(matches!(
            bench
                .uploads
                .open(unknown, REPOSITORY, UploadClaim::default())
                .await,
            Err(Error::UnknownUpload)
        ));
        write(&mut upload, &content(1, 3 << 20), 100_000).await;
        drop(upload);
        assert_eq!(bench.names("segments").len(), 1);
        bench.uploads.cancel(first, REPOSITORY).unwrap();
        assert!(matches!(
            bench.uploads.cancel(first, REPOSITORY),
            Err(Error::UnknownUpload)
        ));
        write(
            &mut bench.upload(second).await,
            &content(1, 3 << 20),
            100_000,
        )
        .await;
        let now = bench.env.clock.monotonic();
        assert_eq!(bench.uploads.expire(now), 0);
        assert_eq!(bench.uploads.expire(now + Duration::from_secs(61)), 1);
        settled(&bench, "segments", 0).await;
        assert!(bench.uploads.begin(spec).is_ok());
    });
}

/// Guards: content that the store has is not written again, unless its copy is damaged.
#[test]
fn stored_content_is_written_again_only_if_damaged() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        for size in [1000, 2 << 20] {
            let bytes = content(3, size);
            let digest = Digest::of(Algorithm::Sha256, &bytes);
            let first = push(&bench, &bytes, 100_000, digest).await;
            let stored = first.extent();
            bench.index.0.lock().insert(digest, stored);
            assert_eq!(push(&bench, &bytes, 100_000, digest).await.extent(), stored);
            bench.segments.damaged().mark_wrong(digest, stored);
            let healed = push(&bench, &bytes, 100_000, digest).await;
            assert_ne!(healed.extent(), stored);
            assert_reads(&bench, digest, healed.extent(), &bytes).await;
        }
        let manifest = Bytes::from_static(b"{}");
        let put = bench
            .uploads
            .put_small(manifest.clone(), Algorithm::Sha512)
            .await
            .unwrap();
        assert_eq!(put.digest(), Digest::of(Algorithm::Sha512, &manifest));
        assert_reads(&bench, put.digest(), put.extent(), &manifest).await;
    });
}

/// Guards: an announced length reserves only a bounded start of the disk, and is only a hint. One that cannot fit is
/// rejected before there is a file.
#[test]
fn announcing_costs_little() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        let announce = async |length| {
            let spec = UploadSpec {
                repository: REPOSITORY.to_owned(),
                length_hint: Some(length),
                ..UploadSpec::default()
            };
            let mut upload = bench.upload(bench.uploads.begin(spec).unwrap()).await;
            let written = upload.write(Bytes::from_static(b"abc")).await;
            (upload, written)
        };
        // No disk has 512 TiB free.
        for length in [1 << 49, u64::MAX] {
            let refused = announce(length).await.1.unwrap_err();
            assert!(refused.is_no_space(), "{refused}");
            assert_eq!(bench.names("segments"), [""; 0]);
        }
        let (mut upload, written) = announce(1 << 30).await;
        written.unwrap();
        for file in std::fs::read_dir(dir.path().join("segments")).unwrap() {
            assert!(file.unwrap().metadata().unwrap().len() < 256 << 20);
        }
        let digest = Digest::of(Algorithm::Sha256, b"abc");
        let finished = upload.finish(digest, None).await.unwrap();
        assert_reads(&bench, digest, finished.extent(), b"abc").await;
    });
}

/// Guards: space is reserved also for the bytes that a later request announces, and what is not used is returned.
#[test]
fn space_is_reserved_for_what_a_request_announces() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        let id = bench.begin(Algorithm::Sha256);
        let bytes = content(8, 2 << 20);
        write(&mut bench.upload(id).await, &bytes[..1 << 20], 100_000).await;
        let on_disk = || {
            let files = std::fs::read_dir(dir.path().join("segments")).unwrap();
            let length = |file: std::fs::DirEntry| file.metadata().unwrap().len();
            files.map(|file| length(file.unwrap())).sum::<u64>()
        };
        assert!(on_disk() < 2 << 20);
        let claim = UploadClaim {
            announced: Some(1 << 30),
            ..UploadClaim::default()
        };
        let mut upload = bench.uploads.open(id, REPOSITORY, claim).await.unwrap();
        write(&mut upload, &bytes[1 << 20..], 100_000).await;
        eventually("space is reserved", || on_disk() >= 16 << 20).await;
        assert!(on_disk() < 64 << 20);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let finished = upload.finish(digest, None).await.unwrap();
        assert!(on_disk() < 3 << 20);
        assert_reads(&bench, digest, finished.extent(), &bytes).await;
    });
}

/// Guards: the largest manifest is accepted however low the threshold of large blobs is.
#[test]
fn manifests_do_not_know_the_threshold() {
    run(|dir| async move {
        let options = small_options();
        assert!(options.spill_threshold_bytes < SMALL_CONTENT_BYTES);
        let bench = Workbench::open(dir.path(), 1, &options).await;
        let manifest = content(4, 4 << 20);
        let put = bench
            .uploads
            .put_small(manifest.clone().into(), Algorithm::Sha256);
        let put = put.await.unwrap();
        assert_reads(&bench, put.digest(), put.extent(), &manifest).await;
    });
}

/// Guards: while idle uploads use up the staging budget, others continue by spilling early, and the budget is returned.
#[test]
fn a_used_up_staging_budget_stops_nobody() {
    run(|dir| async move {
        let options = Options {
            staging_budget_bytes: 1 << 20,
            ..small_options()
        };
        let bench = Arc::new(Workbench::open(dir.path(), 1, &options).await);
        // Of several clients, because one gets only a part.
        let idle = [(1, 380_000), (2, 250_000), (3, 200_000)].map(|(client, length)| {
            let claim = UploadClaim {
                client: ClientId(client),
                ..UploadClaim::default()
            };
            (bench.begin(Algorithm::Sha256), claim, content(1, length))
        });
        for (id, claim, bytes) in &idle {
            let opened = bench.uploads.open(*id, REPOSITORY, *claim);
            write(&mut opened.await.unwrap(), bytes, 10_000).await;
        }
        let bytes = content(2, 300_000);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let pushes = (0..4).map(|_| push(&bench, &bytes, 10_000, digest));
        for blob in futures_util::future::join_all(pushes).await {
            assert_eq!(blob.extent().layout, Layout::Trailing, "it spilled");
            assert_reads(&bench, digest, blob.extent(), &bytes).await;
        }
        for (id, ..) in idle {
            bench.uploads.cancel(id, REPOSITORY).unwrap();
        }
        let blob = push(&bench, &bytes, 10_000, digest).await;
        assert_eq!(
            blob.extent().layout,
            Layout::Leading,
            "the budget came back"
        );
        assert!(bench.poison.cause().is_none());
    });
}

/// Guards: a request that is given up at any wait leaves an upload that continues correctly from its offset.
#[test]
fn requests_given_up_at_any_wait_lose_nothing() {
    run(|dir| async move {
        let bench = Workbench::open(dir.path(), 1, &small_options()).await;
        let bytes = content(11, (3 << 20) + 1);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let id = bench.begin(Algorithm::Sha256);
        let mut given_up = 0;
        let blob = loop {
            let mut upload = bench.upload(id).await;
            let offset = usize::try_from(upload.offset()).unwrap();
            let step = async {
                if offset < bytes.len() {
                    let end = bytes.len().min(offset + 300_000);
                    upload
                        .write(Bytes::copy_from_slice(&bytes[offset..end]))
                        .await
                        .map(|()| None)
                } else {
                    upload.finish(digest, None).await.map(Some)
                }
            };
            // The first poll, then a drop: what is in flight continues.
            match futures_util::FutureExt::now_or_never(step) {
                None => given_up += 1,
                Some(done) => {
                    if let Some(blob) = done.unwrap() {
                        break blob;
                    }
                }
            }
            tokio::task::yield_now().await;
        };
        assert!(given_up > 0, "nothing was given up, so nothing was tested");
        assert_reads(&bench, digest, blob.extent(), &bytes).await;
    });
}
