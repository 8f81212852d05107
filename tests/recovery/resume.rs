//! Uploads across a stop: an upload that exists after a crash continues at its reported offset and ends as the content
//! that was sent, whatever was rolled back before.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tonnage_engine::{
    Algorithm, Change, Digest, Error, FinishedBlob, Store, Upload, UploadClaim, UploadId,
    UploadPosition, UploadSpec,
};
use tonnage_tests::batch_of;
use tonnage_tests::machine::{Image, Machine, Outcome, Policy};
use tonnage_tests::whole_blobs::{ByDigest as _, InOnePiece as _};

use super::check;

const REPOSITORY: &str = "library/a";
const KEPT: usize = 200_000;
const ROLLED_BACK: usize = 300_000;
/// More than the time after which an upload is quiet.
const QUIET: Duration = Duration::from_secs(5);

/// Returns what the client sends. The second part is rolled back before the third.
fn parts() -> [Bytes; 3] {
    let part = |salt: u8, length: usize| {
        (0..length)
            .map(|at| (at % 241) as u8 ^ (at / 4096) as u8 ^ salt)
            .collect()
    };
    [part(1, KEPT), part(2, ROLLED_BACK), part(3, 350_000)]
}

/// Returns the content of the finished upload.
fn content() -> Bytes {
    let [first, _, third] = parts();
    [first, third].concat().into()
}

/// The progress of the client, as far as answers confirmed it.
#[derive(Debug, Default)]
struct ClientProgress {
    /// Of a push: 1: the second part is being sent; 2: it is being rolled back; 3: it was rolled back; 4: committed. Of
    /// an interrupted close: 1: the first part is suspended; 2: the store was closed.
    phase: AtomicU8,
    id: std::sync::OnceLock<UploadId>,
}

async fn open(machine: &Machine) -> Store {
    let opened = Store::open(machine.env.clone(), &check::store_path(), check::options()).await;
    opened.expect("the store opens").0
}

async fn link(store: &Store, blob: FinishedBlob) -> Result<(), Error> {
    let digest = blob.digest();
    let batch = batch_of(REPOSITORY, vec![blob], vec![Change::Link(digest)]);
    store.commit(batch).await.map(drop)
}

fn begin(store: &Store, progress: &ClientProgress) -> Result<UploadId, Error> {
    let id = store.begin_upload(UploadSpec {
        repository: REPOSITORY.to_owned(),
        ..UploadSpec::default()
    })?;
    Ok(*progress.id.get_or_init(|| id))
}

async fn take(store: &Store, id: UploadId, position: UploadPosition) -> Result<Upload, Error> {
    let claim = UploadClaim {
        position,
        ..UploadClaim::default()
    };
    store.open_upload(id, REPOSITORY, claim).await
}

/// Runs the client's side of the upload.
async fn push(store: &Store, progress: &ClientProgress) -> Result<(), Error> {
    let id = begin(store, progress)?;
    let [first, second, third] = parts();
    let mut upload = take(store, id, UploadPosition::Anywhere).await?;
    upload.write(first).await?;
    let before = upload.savepoint().await?;
    progress.phase.store(1, Ordering::Relaxed);
    upload.write(second).await?;
    progress.phase.store(2, Ordering::Relaxed);
    upload.rollback(before).await?;
    progress.phase.store(3, Ordering::Relaxed);
    upload.write(third).await?;
    let blob = upload
        .finish(Digest::of(Algorithm::Sha256, &content()), None)
        .await?;
    link(store, blob).await?;
    progress.phase.store(4, Ordering::Relaxed);
    Ok(())
}

fn run(
    seed: u64,
    stop_after: Option<u64>,
    client: impl AsyncFn(&Machine, &ClientProgress),
) -> (Machine, ClientProgress) {
    let machine = Machine::new(seed, &check::empty_disk());
    if let Some(points) = stop_after {
        machine.disk.stop_after(points);
    }
    let progress = ClientProgress::default();
    let outcome = machine
        .executor
        .run_until_crash(client(&machine, &progress));
    assert_eq!(matches!(outcome, Outcome::Crashed), stop_after.is_some());
    (machine, progress)
}

/// Continues the upload after a stop, if it exists, and ends it. Returns whether it existed.
async fn continue_upload(store: &Store, progress: &ClientProgress) -> Result<bool, String> {
    let phase = progress.phase.load(Ordering::Relaxed);
    let digest = Digest::of(Algorithm::Sha256, &content());
    let status = progress
        .id
        .get()
        .and_then(|id| Some((*id, store.upload_status(*id, REPOSITORY)?)));
    let Some((id, status)) = status else {
        let stored = store.open_blob(&digest).await;
        let stored = stored.map_err(|error| error.to_string())?;
        if stored.is_none() && phase == 4 {
            return Err("the acknowledged blob is gone".to_owned());
        }
        return Ok(false);
    };
    if phase == 4 {
        return Err("an upload that ended is back".to_owned());
    }
    let [first, second, third] = parts();
    let taken_back: Bytes = [first, second, third].concat().into();
    // Until the rollback is confirmed to the client, the second part may be present.
    let candidates = if phase < 3 {
        vec![content(), taken_back]
    } else {
        vec![content()]
    };
    let offset = usize::try_from(status.offset).map_err(|error| error.to_string())?;
    let fail = |error: Error| format!("from {offset} in phase {phase}: {error}");
    let mut upload = take(store, id, UploadPosition::Anywhere)
        .await
        .map_err(fail)?;
    for whole in candidates {
        let before = upload.savepoint().await.map_err(fail)?;
        upload.write(whole.slice(offset..)).await.map_err(fail)?;
        let digest = Digest::of(Algorithm::Sha256, &whole);
        match upload.finish(digest, None).await {
            Ok(blob) => {
                link(store, blob).await.map_err(fail)?;
                let reader = store.open_blob(&digest).await.map_err(fail)?;
                let reader = reader.ok_or("not stored")?;
                let bytes = reader.read_whole(1 << 30).await.map_err(fail)?;
                return if bytes == whole {
                    Ok(true)
                } else {
                    Err("other bytes".to_owned())
                };
            }
            Err(Error::DigestMismatch { .. }) => upload.rollback(before).await.map_err(fail)?,
            Err(error) => return Err(fail(error)),
        }
    }
    Err(format!(
        "the first {offset} bytes in phase {phase} differ from what was sent"
    ))
}

fn check_image(
    seed: u64,
    image: &Image,
    progress: &ClientProgress,
    continue_upload: &impl AsyncFn(&Store, &ClientProgress) -> Result<bool, String>,
) -> Result<bool, String> {
    let machine = Machine::new(seed, image);
    let resumed = machine.executor.block_on(async {
        let store = open(&machine).await;
        let resumed = continue_upload(&store, progress).await?;
        store.close().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(resumed)
    })?;
    machine.executor.settle();
    check::fsck_image(seed, &machine.disk.live_image())?;
    Ok(resumed)
}

/// Stops `client` anywhere and continues each image. Returns how many uploads continued, and the number of images.
fn stop_anywhere(
    client: impl AsyncFn(&Machine, &ClientProgress),
    continue_upload: impl AsyncFn(&Store, &ClientProgress) -> Result<bool, String>,
) -> (u32, u32) {
    let full = std::env::var("TONNAGE_TEST_FULL").is_ok_and(|value| value == "1");
    let stride = if full { 1 } else { 9 };
    let (mut images, mut resumed) = (0, 0);
    for seed in 1..=2 {
        let points = run(seed, None, &client).0.disk.points();
        for stop_after in (seed..points).step_by(stride) {
            let (machine, progress) = run(seed, Some(stop_after), &client);
            for crash in machine
                .disk
                .crash_images(&Policy::coarse(seed ^ stop_after))
            {
                images += 1;
                match check_image(seed, &crash.image, &progress, &continue_upload) {
                    Ok(continued) => resumed += u32::from(continued),
                    Err(why) => panic!(
                        "seed {seed}, stopped after {stop_after} of {points}, image {:?}: {why}",
                        crash.label
                    ),
                }
            }
        }
    }
    println!("{images} images, {resumed} uploads continued");
    (resumed, images)
}

/// Guards: an upload left by a crash continues at the offset of its status and ends as what was sent, or it is unknown.
/// Rolled-back bytes never return once the client knows of the rollback. A committed upload does not return.
#[test]
fn an_upload_goes_on_after_a_crash_anywhere() {
    let client = async |machine: &Machine, progress: &ClientProgress| {
        let store = open(machine).await;
        push(&store, progress).await.expect("the push succeeds");
        store.close().await.expect("the store closes");
    };
    let (resumed, images) = stop_anywhere(client, continue_upload);
    assert!(resumed > 20, "{resumed} of {images} uploads continued");
}

/// Sends a first part of `kept` bytes and half of a close, which is suspended twice while its client is silent.
async fn interrupt_close(
    machine: &Machine,
    progress: &ClientProgress,
    kept: usize,
) -> Result<Store, Error> {
    let wait = || machine.env.clock.sleep(QUIET);
    let store = open(machine).await;
    let id = begin(&store, progress)?;
    let whole = content();
    if kept > 0 {
        let mut upload = take(&store, id, UploadPosition::Anywhere).await?;
        upload.write(whole.slice(..kept)).await?;
        drop(upload);
        wait().await;
    }
    progress.phase.store(1, Ordering::Relaxed);
    let mut upload = take(&store, id, UploadPosition::End).await?;
    upload.savepoint_of_close().await?;
    for part in [kept..300_000, 300_000..400_000] {
        upload.write(whole.slice(part)).await?;
        wait().await;
    }
    upload.write(whole.slice(400_000..410_000)).await?;
    Ok(store)
}

/// Sends the close again, if the upload exists. Returns whether it did.
async fn close_again(
    store: &Store,
    progress: &ClientProgress,
    kept: usize,
) -> Result<bool, String> {
    let phase = progress.phase.load(Ordering::Relaxed);
    let suspended = phase >= 1 && kept > 0;
    let id = progress.id.get().copied();
    let Some(id) = id.filter(|id| store.upload_status(*id, REPOSITORY).is_some()) else {
        return if suspended || phase == 2 {
            Err("a suspended upload is gone".to_owned())
        } else {
            Ok(false)
        };
    };
    if kept > 0 && !suspended {
        return Ok(false);
    }
    let fail = |error: Error| format!("in phase {phase}: {error}");
    let whole = content();
    let mut upload = take(store, id, UploadPosition::End).await.map_err(fail)?;
    upload.savepoint_of_close().await.map_err(fail)?;
    upload.write(whole.slice(kept..)).await.map_err(fail)?;
    let digest = Digest::of(Algorithm::Sha256, &whole);
    let blob = upload.finish(digest, None).await.map_err(fail)?;
    link(store, blob).await.map_err(fail)?;
    Ok(true)
}

/// Guards: an interrupted close without a range is sent again, as a whole, after a stop anywhere, clean or not, and
/// makes the blob. Its upload has the bytes before the close; if there were none, it may be unknown.
#[test]
fn a_close_that_broke_off_is_sent_again_after_a_stop_anywhere() {
    for kept in [0, KEPT] {
        let client = async |machine: &Machine, progress: &ClientProgress| {
            let store = interrupt_close(machine, progress, kept).await;
            let store = store.expect("the client sends");
            store.close().await.expect("the store closes");
            progress.phase.store(2, Ordering::Relaxed);
        };
        let again = async |store: &Store, progress: &ClientProgress| {
            close_again(store, progress, kept).await
        };
        let (machine, progress) = run(3, None, client);
        let image = machine.disk.live_image();
        let closed = check_image(3, &image, &progress, &again);
        assert_eq!(closed, Ok(true), "{kept}, after a clean stop");
        let (resumed, images) = stop_anywhere(client, again);
        assert!(
            resumed > 20,
            "{kept}: {resumed} of {images} uploads continued"
        );
    }
}

/// Guards: a client that asked for the offset of its interrupted close continues there also after a clean stop.
#[test]
fn a_clean_stop_keeps_what_an_answer_named() {
    for asked in [false, true] {
        let (machine, progress) = run(
            4,
            None,
            async |machine: &Machine, progress: &ClientProgress| {
                let store = interrupt_close(machine, progress, KEPT)
                    .await
                    .expect("the client sends");
                let id = progress.id.get().expect("it began");
                if asked {
                    let status = store.upload_status(*id, REPOSITORY);
                    assert_eq!(status.map(|status| status.offset), Some(410_000));
                }
                store.close().await.expect("the store closes");
            },
        );
        let machine = Machine::new(4, &machine.disk.live_image());
        machine.executor.block_on(async {
            let store = open(&machine).await;
            let id = progress.id.get().expect("it began");
            let status = store.upload_status(*id, REPOSITORY);
            let there = if asked { 410_000 } else { KEPT as u64 };
            assert_eq!(status.map(|status| status.offset), Some(there));
            store.close().await.expect("the store closes");
        });
    }
}
