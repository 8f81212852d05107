//! A disk that is nearly full: uploads are refused before their bytes, and nothing else is.

use std::time::Duration;

use tonnage_engine::vocabulary::ClientId;
use tonnage_engine::{Algorithm, Error, Options, UploadClaim, UploadPosition};
use tonnage_tests::machine::{Fault, OpKind, OpRecord};

use super::check;
use super::uploads::{REPOSITORY, Setup, content, digest, run, send};

const MIN_BYTES: u64 = 300_000;
/// What a request brings that continues an upload.
const CONTINUES: UploadClaim = UploadClaim {
    client: ClientId::ENGINE,
    position: UploadPosition::Anywhere,
    algorithm: None,
    brings_bytes: true,
    announced: None,
};

fn options() -> Options {
    Options {
        free_space_min_bytes: Some(MIN_BYTES),
        ..check::options()
    }
}

/// Leaves `free` bytes of the disk.
async fn leave_free(setup: &Setup, free: u64) {
    let disk = &setup.machine.disk;
    disk.set_capacity(Some(disk.used_bytes() + free));
    // The last measurement is too old then.
    setup.wait().await;
}

/// Guards: below the watermark, idle uploads are ended for a request, the longest idle first and no more than needed.
/// One that was used a moment ago is waited for. If there are none, the request is refused.
#[test]
fn idle_uploads_are_ended_before_a_push_is_refused() {
    run(options(), async |setup| {
        let part = || content(1, 250_000);
        let held = setup.leave(part()).await;
        let holder = setup.open(held).await.expect("the upload exists");
        let mut idle = Vec::new();
        for _ in 0..3 {
            idle.push(setup.leave(part()).await);
            setup.wait().await;
        }
        leave_free(setup, 100_000).await;
        // This request only measures; the next one finds the result.
        setup.store.admit_upload().await.expect("admitted");
        setup.wait().await;
        setup
            .store
            .admit_upload()
            .await
            .expect("the first is ended");
        assert_eq!(setup.offset(idle[0]), None);
        assert_eq!(setup.offset(idle[1]), Some(250_000));

        leave_free(setup, 100_000).await;
        drop(setup.open(idle[1]).await.expect("the upload exists"));
        setup
            .machine
            .env
            .clock
            .sleep(Duration::from_millis(10))
            .await;
        drop(setup.open(idle[2]).await.expect("the upload exists"));
        setup.store.admit_upload().await.expect("admitted");
        setup
            .machine
            .env
            .clock
            .sleep(Duration::from_millis(500))
            .await;
        let before = setup.machine.env.clock.monotonic();
        setup.store.admit_upload().await.expect("one is ended");
        assert!(setup.machine.env.clock.monotonic() - before > Duration::from_secs(1));
        assert_eq!(setup.offset(idle[1]), None);
        assert_eq!(setup.offset(idle[2]), Some(250_000));

        drop(setup.open(idle[2]).await.expect("the upload exists"));
        leave_free(setup, 10_000).await;
        setup.store.admit_upload().await.expect("admitted");
        setup.wait().await;
        let refused = setup.store.admit_upload().await;
        assert!(
            matches!(refused, Err(Error::NearlyFull { min: MIN_BYTES, .. })),
            "{refused:?}"
        );
        assert_eq!(setup.offset(idle[2]), None);
        drop(holder);
        assert_eq!(setup.offset(held), Some(250_000));
        setup.machine.disk.set_capacity(None);
    });
}

/// Guards: below the watermark a chunk is refused without taking the turn, and its upload keeps what it has. A close
/// without bytes, a manifest and a commit are accepted. With space, chunks are accepted again.
#[test]
fn only_bytes_are_refused_below_the_watermark() {
    run(options(), async |setup| {
        let whole = content(1, 400_000);
        let id = setup.leave(whole.slice(..250_000)).await;
        leave_free(setup, 290_000).await;
        let mut holder = setup.open(id).await.expect("the upload exists");
        setup.store.admit_upload().await.expect("admitted");
        setup.wait().await;
        let store = &setup.store;
        let refused = store.open_upload(id, REPOSITORY, CONTINUES).await;
        assert!(
            matches!(refused, Err(Error::NearlyFull { .. })),
            "{refused:?}"
        );
        assert_eq!(setup.offset(id), Some(250_000));
        let unknown = store.open_upload(id, "library/b", CONTINUES).await;
        assert!(matches!(unknown, Err(Error::UnknownUpload)), "{unknown:?}");
        send(&mut holder, whole.slice(250_000..260_000))
            .await
            .expect("its turn");
        drop(holder);
        let closing = UploadClaim {
            position: UploadPosition::End,
            ..UploadClaim::default()
        };
        let mut last = store
            .open_upload(id, REPOSITORY, closing)
            .await
            .expect("it brings no bytes");
        let blob = last.finish(digest(&whole.slice(..260_000)), None).await;
        let blob = blob.expect("there is space left");
        setup.link(blob).await.expect("there is space left");
        let manifest = store.put_small(content(3, 500), Algorithm::Sha256).await;
        let manifest = manifest.expect("there is space left");
        setup.link(manifest).await.expect("there is space left");
        assert!(store.disk_space().is_some_and(|space| space.is_low()));

        setup.machine.disk.set_capacity(None);
        setup.wait().await;
        store.admit_upload().await.expect("there is space");
        assert!(!store.disk_space().is_some_and(|space| space.is_low()));
        setup.push(&whole).await.expect("there is space");
    });
}

/// Guards: a measurement that hangs delays no request while the last one was above the watermark.
#[test]
fn admission_never_waits_for_a_measurement() {
    run(options(), async |setup| {
        setup.wait().await;
        let asked = |setup: &Setup| {
            let log = setup.machine.disk.log();
            let asks = |op: &&OpRecord| op.kind == OpKind::Ask && op.path.ends_with("segments");
            log.iter().filter(asks).count()
        };
        let before = asked(setup);
        let failing = Fault::nth(OpKind::Ask, 1).on("segments");
        setup.machine.disk.add_fault(failing.with_errno(5));
        let begun = setup.machine.env.clock.monotonic();
        for _ in 0..10 {
            setup.store.admit_upload().await.expect("admitted");
        }
        assert_eq!(setup.machine.env.clock.monotonic(), begun);
        setup.wait().await;
        assert_eq!(asked(setup), before + 1);
        setup.store.admit_upload().await.expect("admitted");
    });
}
