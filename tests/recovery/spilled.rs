//! Large uploads and blobs at the disk: whose work they are, and writes that did not reach the drive.

use tonnage_engine::io::Class;
use tonnage_engine::vocabulary::ClientId;
use tonnage_engine::{Error, UploadClaim};
use tonnage_tests::machine::{EIO, Fault, Noise, OpKind, OpRecord};
use tonnage_tests::whole_blobs::InOnePiece as _;

use super::check;
use super::uploads::{REPOSITORY, content, digest, run, send};

/// Guards: an upload ends when its bytes did not reach the drive, because the kernel reports that once. A finish never
/// succeeds on such bytes, and the upload is gone.
#[test]
fn bytes_that_did_not_reach_the_drive_end_the_upload() {
    run(check::options(), async |setup| {
        let whole = content(1, 400_000);
        let id = setup.begin().expect("there is room");
        let mut upload = setup.open(id).await.expect("the upload exists");
        // No other operation of this kind is one of a segment's.
        let fault = Fault::nth(OpKind::Ask, 1).on(".segment").with_errno(EIO);
        setup.machine.disk.add_fault(fault);
        // It may be the finish that waits for the write.
        drop(send(&mut upload, whole.clone()).await);
        let finished = upload.finish(digest(&whole), None).await.map(drop);
        assert!(matches!(finished, Err(Error::Io { .. })), "{finished:?}");
        drop(upload);
        assert_eq!(setup.offset(id), None);
    });
}

/// Guards: writes, syncs and logs of an upload count as work of the client whose request has the turn, so that clients
/// take turns. Only the creation of the file is the engine's.
#[test]
fn the_work_of_an_upload_is_its_clients() {
    run(check::options(), async |setup| {
        let whole = content(1, 600_000);
        let id = setup.begin().expect("there is room");
        for client in [1, 2] {
            let claim = UploadClaim {
                client: ClientId(client),
                ..UploadClaim::default()
            };
            let before = setup.machine.disk.log().len();
            let upload = setup.store.open_upload(id, REPOSITORY, claim).await;
            let mut upload = upload.expect("the upload exists");
            let from = usize::try_from(upload.offset()).expect("small");
            let sent = send(&mut upload, whole.slice(from..from + 300_000)).await;
            sent.expect("the disk is sound");
            drop(upload);
            // It is suspended: everything is synced, and its log names it.
            setup.wait().await;
            let log = setup.machine.disk.log();
            let is_header = |op: &OpRecord| {
                op.offset == 0 && op.path.extension().is_some_and(|end| end == "segment")
            };
            let of_upload = |op: &&OpRecord| op.call.class == Class::UploadWrite && !is_header(op);
            for kind in [OpKind::Write, OpKind::Ask, OpKind::SyncData] {
                let done = log[before..].iter().filter(of_upload);
                let clients: Vec<u128> = done
                    .filter(|op| op.kind == kind)
                    .map(|op| op.call.client.0)
                    .collect();
                assert!(!clients.is_empty(), "{kind:?}");
                assert!(
                    clients.iter().all(|of| *of == client),
                    "{kind:?}: {clients:?}"
                );
            }
        }
    });
}

/// Guards: what has to be read from the disk of a blob is its client's.
#[test]
fn the_reads_of_a_blob_are_its_clients() {
    run(check::options(), async |setup| {
        let whole = content(1, 600_000);
        setup.push(&whole).await.expect("the disk is sound");
        let digest = digest(&whole);
        let found = setup.store.view().read(|view| view.blob(&digest)).await;
        let found = found.expect("the disk is sound").expect("it was pushed");
        let opened = setup.store.open_found(&digest, &found, ClientId(7)).await;
        let reader = opened.expect("the disk is sound").expect("it is stored");
        setup.machine.disk.set_noise(Noise {
            would_block: 100,
            ..Noise::NONE
        });
        let before = setup.machine.disk.log().len();
        let read = reader.read_whole(1 << 20).await.expect("the disk is sound");
        assert!(read == whole);
        let log = setup.machine.disk.log();
        let reads = log[before..].iter().filter(|op| op.kind == OpKind::Read);
        let clients: Vec<u128> = reads.map(|op| op.call.client.0).collect();
        assert!(
            !clients.is_empty() && clients.iter().all(|of| *of == 7),
            "{clients:?}"
        );
    });
}
