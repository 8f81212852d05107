//! Recovery of what a stop left: opens it, reads everything, continues its uploads, closes it, and runs `fsck` before
//! and after.
//!
//! Owns: [`recover`], from an image to its content, the same for every caller. Refuses: to decide whether that content
//! is right (`timeline`).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tonnage_engine::fsck::{self, Finding, FsckOptions, FsckReport, Severity};
use tonnage_engine::{
    Batch, Change, Digest, Error, OpenReport, Options, Origin, Store, UploadClaim, UploadId,
};

use super::content::Contents;
use super::found;
use super::record::SentUpload;
use super::state::Model;
use crate::machine::{Image, Machine};
use crate::whole_blobs::{ByDigest as _, InOnePiece as _};

/// A violated promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The check that noticed it.
    pub check: &'static str,
    /// What is wrong.
    pub what: String,
}

impl Violation {
    /// Creates a violation that `check` noticed.
    pub fn new(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            what: what.into(),
        }
    }
}

/// The content of an image after its recovery.
#[derive(Debug, Clone)]
pub struct Found {
    /// The last transaction.
    pub lsn: u64,
    /// The state that readers see, and the stored blobs.
    pub model: Model,
    /// Uploads that were present, and whether their bytes were the ones that are rolled back later.
    pub uploads: BTreeMap<UploadId, bool>,
    /// The report of the open.
    pub report: OpenReport,
    /// Whether `fsck` finds an invalid checkpoint even after the close.
    pub torn_checkpoint: bool,
}

/// Returns the path of the store on the simulated disk.
pub fn store_path() -> PathBuf {
    PathBuf::from("/srv/store")
}

/// Returns a disk with the directory in which the store will be created.
pub fn empty_disk() -> Image {
    Image::with_dir("/srv")
}

/// Returns whether the image contains a store. A store has a random identity, so images of different seeds differ then.
pub fn has_store(image: &Image) -> bool {
    let superblock = image.files.get(&store_path().join("superblock"));
    superblock.is_some_and(|content| !content.is_empty())
}

/// The expected content of an image, and how to recover it.
#[derive(Debug, Clone)]
pub struct Task {
    /// The seed for the order of tasks and completions.
    pub seed: u64,
    /// The options of the store.
    pub options: Options,
    /// The contents that may be stored.
    pub universe: Contents,
    /// The uploads that may be present.
    pub uploads: BTreeMap<UploadId, SentUpload>,
}

/// Runs `what`. A panic becomes a violation.
pub fn guarded<T>(
    check: &'static str,
    what: impl FnOnce() -> Result<T, Violation>,
) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        let what = text.unwrap_or("a panic without a message").to_owned();
        Err(Violation::new(check, what))
    })
}

/// Recovers `image`. Returns its content.
pub fn recover(task: &Task, image: &Image) -> Result<Found, Violation> {
    guarded("panic in recovery", || {
        let mut lsn = 0;
        if image.files.contains_key(&store_path().join("superblock")) {
            lsn = sound(task.seed, image, "fsck before")?.lsn.0;
        }
        let machine = Machine::new(task.seed, image);
        let mut found = machine.executor.block_on(look(task, &machine, lsn))?;
        machine.executor.settle();
        let report = sound(task.seed, &machine.disk.live_image(), "fsck after")?;
        let is_checkpoint = |finding: &Finding| {
            let name = finding.path.file_name().unwrap_or_default();
            finding.severity == Severity::Cache && name.to_string_lossy().starts_with("checkpoint.")
        };
        found.torn_checkpoint = !report.findings.is_empty();
        if !report.clean || !report.findings.iter().all(is_checkpoint) {
            let what = format!("not clean after a clean stop: {report:?}");
            return Err(Violation::new("clean stop", what));
        }
        Ok(found)
    })
}

/// Opens a store with damaged bytes, as an operator does. After a clean stop its runs are checked while it is open. If
/// one is damaged, `use_damaged` uses the store as it is. Then it is opened a second time, which must rebuild the run.
pub async fn open_damaged(
    machine: &Machine,
    options: &Options,
    use_damaged: impl AsyncFn(&Store),
) -> Result<Store, Error> {
    let path = store_path();
    let open = || Store::open(machine.env.clone(), &path, options.clone());
    let (store, _) = open().await?;
    // The runs are checked by then.
    machine.env.clock.sleep(Duration::from_secs(1)).await;
    let stats = store.run_stats();
    assert_eq!(stats.unchecked, 0, "the check of the runs is not over");
    if !stats.damaged {
        return Ok(store);
    }
    use_damaged(&store).await;
    drop(store.close().await);
    drop(store);
    let (store, report) = open().await?;
    assert!(!report.clean, "a stop with a damaged run was clean");
    let stats = store.run_stats();
    assert!(
        !stats.damaged && stats.unchecked == 0,
        "a damaged run is in use"
    );
    Ok(store)
}

/// Runs `fsck` on an image. Damage is a violation, leftover files and invalid caches are not.
pub fn sound(seed: u64, image: &Image, check: &'static str) -> Result<FsckReport, Violation> {
    let report = fsck_image(seed, image);
    let report = report.map_err(|error| Violation::new(check, error.to_string()))?;
    if report.is_sound() {
        Ok(report)
    } else {
        Err(Violation::new(check, format!("{:?}", report.findings)))
    }
}

/// Runs `fsck` on an image.
pub fn fsck_image(seed: u64, image: &Image) -> Result<FsckReport, Error> {
    let machine = Machine::new(seed, image);
    machine.executor.block_on(fsck_at(&machine, &store_path()))
}

async fn fsck_at(machine: &Machine, path: &Path) -> Result<FsckReport, Error> {
    fsck::check(&machine.env, path, FsckOptions { deep: true }, &|_, _| {}).await
}

async fn look(task: &Task, machine: &Machine, lsn: u64) -> Result<Found, Violation> {
    let failed = |check| move |error: Error| Violation::new(check, error.to_string());
    let opened = Store::open(machine.env.clone(), &store_path(), task.options.clone()).await;
    let (store, report) = opened.map_err(failed("open"))?;
    if !report.segments_missing.is_empty() || !report.segments_truncated.is_empty() {
        let what = format!("segments are missing or too short: {report:?}");
        return Err(Violation::new("open", what));
    }
    let mut model = found::snapshot(&store).await.map_err(failed("names"))?;
    let reverses = found::reverses(&store, &model)
        .await
        .map_err(failed("names"))?;
    reverses.map_err(|what| Violation::new("names", what))?;
    let usages = found::usages(&store).await.map_err(failed("usage"))?;
    usages.map_err(|what| Violation::new("usage", what))?;
    for (digest, content) in &task.universe {
        if store
            .view()
            .read(|view| view.blob(digest))
            .await
            .map_err(failed("names"))?
            .is_some()
        {
            check_content(&store, digest, content).await?;
            model.stored.insert(*digest);
        }
    }
    let mut uploads = BTreeMap::new();
    for (id, sent) in &task.uploads {
        if store.upload_status(*id, &sent.repository).is_some() {
            uploads.insert(*id, finish_upload(&store, *id, sent).await?);
        }
    }
    store.close().await.map_err(failed("close"))?;
    Ok(Found {
        lsn,
        model,
        uploads,
        report,
        torn_checkpoint: false,
    })
}

/// Reads a blob and compares it with what was pushed.
async fn check_content(store: &Store, digest: &Digest, content: &Bytes) -> Result<(), Violation> {
    let wrong = |what: String| Violation::new("content", format!("{digest}: {what}"));
    let reader = store.open_blob(digest).await;
    let reader = reader.map_err(|error| wrong(error.to_string()))?;
    let reader = reader.ok_or_else(|| wrong("named and not stored".to_owned()))?;
    let bytes = reader.read_whole(1 << 30).await;
    let bytes = bytes.map_err(|error| wrong(error.to_string()))?;
    if bytes == *content {
        Ok(())
    } else {
        let found = Digest::of(digest.algorithm(), &bytes);
        Err(wrong(format!("reads as {found}")))
    }
}

/// Finishes an upload that survived, as its client would, from its reported offset. Returns whether it had the bytes
/// that are rolled back later.
async fn finish_upload(store: &Store, id: UploadId, sent: &SentUpload) -> Result<bool, Violation> {
    let wrong = |what: String| Violation::new("uploads", format!("{id}: {what}"));
    let fail = |error: Error| wrong(error.to_string());
    let mut upload = store
        .open_upload(id, &sent.repository, UploadClaim::default())
        .await
        .map_err(fail)?;
    let offset = upload.offset();
    let with_rolled_back = sent.with_rolled_back.as_ref().map(|whole| {
        let digest = Digest::of(sent.digest.algorithm(), whole);
        (true, whole, digest)
    });
    let candidates = [Some((false, &sent.whole, sent.digest)), with_rolled_back];
    for (rolled_back, whole, digest) in candidates.into_iter().flatten() {
        if offset > whole.len() as u64 {
            continue;
        }
        let before = upload.savepoint().await.map_err(fail)?;
        let rest = whole.slice(usize::try_from(offset).unwrap_or_default()..);
        upload.write(rest).await.map_err(fail)?;
        match upload.finish(digest, None).await {
            Ok(blob) => {
                let digest = blob.digest();
                let batch = Batch {
                    repository: sent.repository.clone(),
                    create_repository: true,
                    requires: vec![],
                    staged: vec![blob],
                    changes: vec![Change::Link(digest)],
                    origin: Origin::default(),
                };
                store.commit(batch).await.map_err(fail)?;
                check_content(store, &digest, whole).await?;
                return Ok(rolled_back);
            }
            Err(Error::DigestMismatch { .. }) => upload.rollback(before).await.map_err(fail)?,
            Err(error) => return Err(fail(error)),
        }
    }
    Err(wrong(format!(
        "its {offset} bytes differ from what was sent"
    )))
}
