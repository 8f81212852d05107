//! The facade: everything a program does with a store.
//!
//! Owns: [`Store`] and how its parts are wired. Refuses: logic of its own; each method names the part that does the
//! work.
//!
//! Files of a store and who owns them:
//!
//! | path | owner |
//! |---|---|
//! | `superblock` | `recovery::superblock`, [`Store::open`] |
//! | `reserve` | `journal::writer` uses it up, open makes it again |
//! | `journal/` | `journal` |
//! | `segments/` | `segment` |
//! | `uploads/` | `upload` |
//! | `runs/`, `checkpoint.*` | `checkpoint` |

mod background;
mod checkpoints;
mod close;
mod closed;
mod collection;
mod compaction;
mod damage;
mod damaged_blobs;
mod open;
mod purge;
mod reclaim;
mod repeated_job;
mod run_checks;
mod scrub;
mod stats;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use self::close::JournalTask;
use crate::catalog::{BlobInfo, View};
use crate::commit::prevalidate::REQUIRES_INLINE_MAX;
use crate::commit::{Sequencer, prevalidate};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::extent::{Extent, Lsn};
use crate::finished_blob::{Committed, FinishedBlob};
use crate::io::{ClassCount, Env};
use crate::jobs::{Job, JobControl, JobInfo, JobKind, Jobs};
use crate::lease::{Leases, Pin};
use crate::memory::MemoryAccount;
use crate::options::{Options, UntaggedPolicy};
use crate::poison::Poison;
use crate::recovery::lock::StoreLock;
use crate::segment::{BlobReader, Segments};
use crate::table::{resident, resident_off_worker};
use crate::upload::{DiskSpace, Upload, UploadStatus, Uploads};

use crate::sync::{Mutex, Notify, oneshot};
use crate::vocabulary::{Batch, Change, ClientId, UploadClaim, UploadId, UploadSpec};
pub use checkpoints::{CheckpointReport, RunStats};
pub use closed::ClosedStore;
pub use collection::{
    CollectedBlob, CollectedManifest, CollectionReport, CollectionRequest, CollectionTotals,
};
pub use compaction::CompactionReport;
pub use damaged_blobs::DamagedBlobs;
pub use open::OpenReport;
pub use scrub::{ScrubReport, ScrubRequest, ScrubTotals};
pub use stats::StoreStats;

/// Digests whose leases are ended on the async worker; more would take a millisecond.
const LARGE_LIST: usize = 4096;

/// An open store. Cheap to clone; close it with [`Store::close`] so that the next open is quick.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    env: Env,
    path: PathBuf,
    options: Options,
    sequencer: Arc<Sequencer>,
    /// Large batches are checked and applied one at a time, in order, so that they never use every computing thread.
    large_batches: tokio::sync::Mutex<()>,
    poison: Arc<Poison>,
    leases: Arc<Leases>,
    segments: Arc<Segments>,
    uploads: Arc<Uploads>,
    checkpoints: checkpoints::Checkpoints,
    collection: collection::Collection,
    scrub: Arc<scrub::Scrub>,
    jobs: Arc<Jobs>,
    compaction: compaction::Compaction,
    /// Notified when something was deleted and is to be purged.
    deleted: Arc<Notify>,
    purge: purge::Purge,
    /// True once the store closes: background tasks end.
    closing: watch::Sender<bool>,
    journal: Mutex<Option<JournalTask>>,
    /// Held until the last clone of the store drops and the journal task ends.
    #[expect(dead_code, reason = "held for its drop")]
    lock: Arc<StoreLock>,
}

impl Store {
    /// Returns a consistent snapshot of names, links, edges and placements, as of the last durable transaction.
    pub fn view(&self) -> View {
        View::new(self.inner.sequencer.durable())
    }

    /// Returns the LSN of [`Store::view`].
    pub fn lsn(&self) -> Lsn {
        self.inner.sequencer.durable_lsn()
    }

    /// Returns the directory of the store.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Makes a batch durable and visible, then leases what it links, unless something references it.
    ///
    /// If the returned future is dropped, the batch may still be applied. What it links is then not leased.
    ///
    /// # Errors
    /// [`Error::Unmet`] with the preconditions that do not hold; nothing was changed. [`Error::Poisoned`] if the
    /// journal failed while it wrote the batch, or earlier: nothing of the batch is visible, but a restart may find it
    /// applied.
    pub fn commit(&self, batch: Batch<FinishedBlob>) -> BoxFuture<'_, Result<Committed>> {
        Box::pin(self.commit_and_lease(batch))
    }

    async fn commit_and_lease(&self, batch: Batch<FinishedBlob>) -> Result<Committed> {
        let inner = &self.inner;
        inner.checkpoints.wait_for_room(inner).await;
        let staged: Vec<Digest> = batch.staged.iter().map(FinishedBlob::digest).collect();
        let linked = linked(&batch.changes);
        let referenced = children(&batch.changes);
        // Held until the lease is granted: nothing references yet what is only linked.
        let pin = inner.leases.pin(&linked).await?;
        let begun = inner.leases.now();
        let waiting = inner.submit(batch).await?;
        let committed = waiting.await.map_err(|_gone| Error::Closed)??;
        for digest in &staged {
            let stored = self.view().read(|view| view.blob(digest)).await;
            if let Ok(Some(stored)) = stored {
                inner.segments.damaged().keep_only(digest, &stored.extent);
            }
        }
        for digest in linked {
            // In doubt it is leased: the commit is durable, whatever this read returns.
            let referenced = self.view().read(|view| view.referenced(&digest)).await;
            if !referenced.unwrap_or(false) {
                // It is pinned, so it is not condemned.
                inner.leases.grant(digest).await?;
            }
        }
        drop(pin);
        inner.end_leases(referenced, begun).await;
        inner.checkpoints.start_if_due(inner);
        Ok(committed)
    }

    /// Returns the number of disk operations since the backend was made, by class.
    pub fn io_counts(&self) -> Vec<ClassCount> {
        self.inner.env.io.counts()
    }

    /// Opens a reader of a blob that a view found. If too many files are open, clients are served in turn.
    ///
    /// A blob that has moved since is read where it is now; `None` if it is gone. Does not check who may see it.
    pub async fn open_found(
        &self,
        digest: &Digest,
        found: &BlobInfo,
        client: ClientId,
    ) -> Result<Option<BlobReader>> {
        let segments = &self.inner.segments;
        let mut extent = found.extent;
        loop {
            let failure = match segments.try_open_blob(*digest, extent, client).await {
                Ok(reader) => return Ok(Some(reader)),
                Err(failure) => failure,
            };
            match self.view().read(|view| view.blob(digest)).await? {
                Some(now) if now.extent == extent => {
                    return Err(segments.mark(failure, *digest, extent));
                }
                Some(now) => extent = now.extent,
                None => return Ok(None),
            }
        }
    }

    /// Opens an account for the reads of one client.
    pub fn read_account(&self) -> MemoryAccount {
        self.inner.segments.pool().memory().account()
    }

    /// Returns whether [`Store::is_damaged`] may be true, without waiting.
    pub fn may_be_damaged(&self, digest: &Digest) -> bool {
        self.inner.segments.damaged().may_contain(digest)
    }

    /// Returns whether a blob's bytes are known to be corrupt. Reads find this; pushing the blob again heals it.
    pub async fn is_damaged(&self, digest: &Digest) -> Result<bool> {
        if !self.may_be_damaged(digest) {
            return Ok(false);
        }
        let damaged = self.inner.segments.damaged();
        // Marks of places that the blob has left do not count.
        let stored = self.view().read(|view| view.blob(digest)).await?;
        Ok(stored.is_some_and(|stored| damaged.contains(digest, &stored.extent)))
    }

    /// Protects `digest` from collection for the grace period; called before an answer promises that it exists. What a
    /// manifest references needs no lease and costs no memory.
    pub async fn lease(&self, digest: &Digest) -> Result<()> {
        if self.view().read(|view| view.needs_lease(digest)).await? {
            self.inner.leases.grant(*digest).await?;
        }
        Ok(())
    }

    /// Protects a manifest from collection for the grace period, whatever keeps it: called before an answer promises
    /// it, where [`crate::Repository::manifest_needs_lease`]. Then look it up again: it may be gone.
    pub async fn lease_manifest(&self, digest: &Digest) -> Result<()> {
        self.inner.leases.grant_manifest(*digest).await
    }

    /// Returns which repositories remove untagged manifests.
    pub fn untagged_policy(&self) -> &UntaggedPolicy {
        &self.inner.options.untagged
    }

    /// Protects `digests` from collection until the pin drops: for work that checks them now and names them in a later
    /// commit.
    pub async fn pin(&self, digests: &[Digest]) -> Result<Pin> {
        self.inner.leases.pin(digests).await
    }

    /// Returns whether an unexpired lease or a pin protects the bytes of `digest`.
    pub fn is_leased(&self, digest: &Digest) -> bool {
        self.inner.leases.holds(digest)
    }

    /// Admits an upload before its first byte. If the disk is nearly full, idle uploads are ended first.
    ///
    /// # Errors
    /// [`Error::NearlyFull`] if less space is free than uploads must leave.
    pub async fn admit_upload(&self) -> Result<()> {
        self.inner.poison.check()?;
        self.inner.uploads.admit().await
    }

    /// Returns the last measurement of free space, and measures again for the next call. Never waits.
    pub fn disk_space(&self) -> Option<DiskSpace> {
        self.inner.uploads.disk_space()
    }

    /// Begins an upload; creates no file until its bytes outgrow memory.
    pub fn begin_upload(&self, spec: UploadSpec) -> Result<UploadId> {
        self.inner.poison.check()?;
        self.inner.uploads.begin(spec)
    }

    /// Returns how far an upload has got.
    pub fn upload_status(&self, id: UploadId, repository: &str) -> Option<UploadStatus> {
        self.inner.uploads.status(id, repository)
    }

    /// Returns the actor that began an upload.
    pub fn upload_actor(&self, id: UploadId, repository: &str) -> Option<String> {
        self.inner.uploads.actor(id, repository)
    }

    /// Opens an upload for a request, which takes the turn from the one before if it may. A request that brings bytes
    /// is admitted first ([`Store::admit_upload`]).
    pub async fn open_upload(
        &self,
        id: UploadId,
        repository: &str,
        claim: UploadClaim,
    ) -> Result<Upload> {
        self.inner.poison.check()?;
        self.inner.uploads.open(id, repository, claim).await
    }

    /// Returns the digest that an upload of the repository became a short time ago, for a client that asks again.
    pub fn finished_upload(&self, id: UploadId, repository: &str) -> Option<Digest> {
        self.inner.uploads.finished(id, repository)
    }

    /// Cancels an upload and drops its bytes.
    pub fn cancel_upload(&self, id: UploadId, repository: &str) -> Result<()> {
        self.inner.uploads.cancel(id, repository)
    }

    /// Makes a small content (a manifest) durable; nothing names it yet.
    pub async fn put_small(&self, content: Bytes, algorithm: Algorithm) -> Result<FinishedBlob> {
        self.inner.poison.check()?;
        self.inner.uploads.put_small(content, algorithm).await
    }

    /// Returns the first failure that stopped writes, if there was one.
    pub fn poisoned(&self) -> Option<Arc<Error>> {
        self.inner.poison.cause()
    }

    /// Returns figures for operators.
    pub async fn stats(&self) -> Result<StoreStats> {
        stats::gather(&self.inner).await
    }

    /// Returns the figures of the files of index and catalog.
    pub fn run_stats(&self) -> RunStats {
        self.inner.checkpoints.stats(&self.inner)
    }

    /// Removes blobs that nothing references and whose grace is over, and unlinks segments without a live blob;
    /// compacts others if that is asked for. The store does the same by itself, from time to time.
    pub async fn collect(&self, request: CollectionRequest) -> Result<CollectionReport> {
        let job = self.begin_job(JobKind::Collection);
        let mut report = self.collect_as(&job, request).await?;
        if request.full && !request.dry_run {
            report.compaction = self.compact_as(&job).await?;
        }
        Ok(report)
    }

    /// Runs the first phase of a collection as a job that the caller began. A dry run has no other.
    pub async fn collect_as(
        &self,
        job: &Job,
        request: CollectionRequest,
    ) -> Result<CollectionReport> {
        collection::collect(&self.inner, job, request).await
    }

    /// Runs the second phase of a full collection: compacts until hardly any dead bytes are left.
    pub async fn compact_as(&self, job: &Job) -> Result<CompactionReport> {
        compaction::compact_fully(&self.inner, job).await
    }

    /// Returns the totals of collection since the store was opened.
    pub fn collection_totals(&self) -> CollectionTotals {
        CollectionTotals {
            lock_hold_max: self.inner.sequencer.longest_hold(),
            ..self.inner.collection.totals()
        }
    }

    /// Returns the totals of compaction since the store was opened.
    pub fn compaction_totals(&self) -> CompactionReport {
        self.inner.compaction.totals()
    }

    /// Reads all live blobs now and verifies them; damage is marked, as that which other reads find. The store does the
    /// same by itself, from time to time.
    pub async fn scrub(&self, request: ScrubRequest) -> Result<ScrubReport> {
        let job = self.begin_job(JobKind::Scrub);
        self.scrub_as(&job, request).await
    }

    /// Does the same as a job that the caller began.
    pub async fn scrub_as(&self, job: &Job, request: ScrubRequest) -> Result<ScrubReport> {
        scrub::scrub(&self.inner, job, request).await
    }

    /// Returns the totals of scrub since the store was opened.
    pub fn scrub_totals(&self) -> ScrubTotals {
        self.inner.scrub.totals()
    }

    /// Lists the blobs that are known to be damaged where they are stored, from the first one on.
    pub fn damaged_blobs(&self) -> DamagedBlobs {
        DamagedBlobs::new(self.clone())
    }

    /// Lists a job that the caller does, until the last clone of the result drops.
    pub fn begin_job(&self, kind: JobKind) -> Job {
        self.inner.jobs.begin(kind)
    }

    /// Lists the jobs that run, in the order of their beginnings.
    pub fn jobs(&self) -> Vec<JobInfo> {
        self.inner.jobs.list()
    }

    /// Pauses, resumes or cancels a job. Returns false if it does not run.
    pub fn control_job(&self, id: u64, control: JobControl) -> bool {
        self.inner.jobs.control(id, control)
    }

    /// Writes a checkpoint now, unless nothing changed since the last.
    pub async fn checkpoint(&self) -> Result<CheckpointReport> {
        self.inner.checkpoints.run(&self.inner).await
    }
}

impl Inner {
    /// Queues a batch; a large one off the async workers, because it takes milliseconds to check and to apply.
    async fn submit(
        &self,
        mut batch: Batch<FinishedBlob>,
    ) -> Result<oneshot::Receiver<Result<Committed>>> {
        let (sequencer, segments) = (Arc::clone(&self.sequencer), Arc::clone(&self.segments));
        let deletes = |change: &Change| {
            matches!(change, Change::DeleteRepository | Change::DeleteManifest(_))
        };
        let (deletes, deleted) = (batch.changes.iter().any(deletes), Arc::clone(&self.deleted));
        let large = is_large(&batch);
        let turn = if large {
            Some(self.large_batches.lock().await)
        } else {
            None
        };
        let mut prevalidated = match &turn {
            Some(_) => prevalidate(&self.env, &mut batch, || self.sequencer.head()).await?,
            None => None,
        };
        let submit = move || {
            let damaged = |digest: &Digest, at: &Extent| segments.damaged().contains(digest, at);
            let queued = sequencer.submit(&mut batch, &mut prevalidated, &damaged);
            if deletes && queued.is_ok() {
                // Being queued is enough, whether or not the caller waits: the purge's steps queue after it.
                deleted.notify_one();
            }
            queued
        };
        if large {
            return resident_off_worker(&self.env, submit).await;
        }
        resident(submit).await
    }
}

impl Inner {
    /// Ends the leases, granted by `since`, of what manifests reference now; those of many digests off the async
    /// workers.
    async fn end_leases(&self, referenced: Vec<Digest>, since: Duration) {
        if referenced.len() < LARGE_LIST {
            return self.leases.end_leases(&referenced, since);
        }
        let leases = Arc::clone(&self.leases);
        let ended = self
            .env
            .compute(move || leases.end_leases(&referenced, since));
        // If it does not run, the program stops, and the leases with it.
        ended.await.unwrap_or_default();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a close, queued transactions still become durable; then the journal task ends and the lock is
        // released.
        self.sequencer.close();
    }
}

/// Returns whether a batch takes milliseconds to check or to apply. A deletion counts, because the number of edges it
/// removes is not known yet.
fn is_large(batch: &Batch<FinishedBlob>) -> bool {
    let deletes = |change: &Change| matches!(change, Change::DeleteManifest(_));
    batch.requires.len() > REQUIRES_INLINE_MAX || batch.changes.iter().any(deletes)
}

/// Lists the digests that a batch makes visible, and so promises.
fn linked(changes: &[Change]) -> Vec<Digest> {
    let links = |change: &Change| {
        if let Change::Link(digest) = change {
            Some(*digest)
        } else {
            None
        }
    };
    changes.iter().filter_map(links).collect()
}

/// Lists the digests that a batch's manifests reference.
fn children(changes: &[Change]) -> Vec<Digest> {
    let lists = |change: &Change| {
        if let Change::PutManifest(entry) = change {
            Some(entry.children.clone())
        } else {
            None
        }
    };
    changes.iter().filter_map(lists).flatten().collect()
}
