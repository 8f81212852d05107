//! Collection, beside all other work: the cycle, and the task that repeats it.
//!
//! Owns: [`Collection`] and [`collect`]. Refuses: the rules (`collection`), queueing removals (`commit::removals`), and
//! returning space (`store::reclaim`, `store::compaction`).
//!
//! Invariants: a digest is condemned before its removal is queued; the queued transaction keeps it condemned until it
//! is durable or has failed. One cycle runs at a time. A transaction removes few blobs, so no other commit waits for
//! long.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::Inner;
use super::background::or_closing;
use super::compaction::{self, CompactionReport};
use super::reclaim::reclaim;
use super::untagged::{CollectedManifest, ManifestPass, NextManifest};
use crate::catalog::View;
use crate::collection::{Due, GraceClock, Verdict, is_in_grace, judge};
use crate::commit::{Candidates, Removals, UNLINKS_MAX};
use crate::compaction::Effort;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Lsn};
use crate::jobs::{Job, JobKind};
use crate::options::Options;
use crate::sync::Mutex;
use crate::table::resident_off_worker;

/// Suspects that are settled in one transaction.
const BATCH: usize = 16;
/// Shortest and longest time between two cycles; between them, an eighth of the grace.
const CYCLE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

/// What a cycle is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectionRequest {
    /// Finds what would be removed and removes nothing.
    pub dry_run: bool,
    /// Also compacts shared segments, until hardly any dead bytes are left.
    pub full: bool,
    /// Whether no server had the store open until now: then grace is counted by the wall clock.
    pub was_closed: bool,
    /// Most blobs, and most manifests, that the report names.
    pub list_max: usize,
}

/// What a cycle found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CollectionReport {
    /// Suspects that were looked at: blobs, and manifests of repositories.
    pub suspects: u64,
    /// Suspects that something references or keeps, or that are not stored.
    pub cleared: u64,
    /// Suspects whose grace is not over.
    pub in_grace: u64,
    /// Dead blobs and manifests that a lease or work in progress protects.
    pub leased: u64,
    /// Manifests that were removed from their repositories, or would be. Their blobs become suspects by that.
    pub manifests: u64,
    /// Blobs that were removed, or would be.
    pub blobs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Segments that were unlinked, without those that were compacted.
    pub segments: u64,
    /// What compaction did, or would do.
    pub compaction: CompactionReport,
    /// The last transaction that removed blobs.
    pub lsn: Option<Lsn>,
    /// The last transaction that removed manifests.
    pub manifests_lsn: Option<Lsn>,
    /// The first of the blobs, in the order of their digests.
    pub listed: Vec<CollectedBlob>,
    /// The first of the manifests.
    pub listed_manifests: Vec<CollectedManifest>,
}

/// A blob that was removed, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its payload bytes.
    pub bytes: u64,
}

/// Totals of collection since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectionTotals {
    /// Manifests that were removed from their repositories.
    pub manifests: u64,
    /// Blobs that were removed.
    pub blobs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Segments that were unlinked.
    pub segments: u64,
    /// Suspects whose grace was over, so that they were looked up.
    pub candidates: u64,
    /// Time in ms from the loss of a last reference to the end of the cycle that removed the blob and unlinked its
    /// segment: the longest of the last such cycle.
    pub lag_last_ms: u64,
    /// The longest of all cycles.
    pub lag_max_ms: u64,
    /// Longest time for which collection or compaction held the lock under which commits are queued.
    pub lock_hold_max: Duration,
    /// Wall-clock time at which the last cycle ended without an error, in Unix ms; 0 before.
    pub last_success_unix_ms: u64,
}

/// What collection remembers between two cycles.
#[derive(Debug)]
pub(super) struct Collection {
    cycle: Duration,
    totals: Mutex<CollectionTotals>,
    /// Held by the cycle that runs.
    memory: tokio::sync::Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    grace: GraceClock,
    /// The first transaction of which a suspect is left; `None` if that is not known.
    oldest: Option<Lsn>,
    /// When a manifest may be removed; `None` if that is not known.
    manifests: Option<NextManifest>,
}

impl Collection {
    /// Starts at `now`, with `durable` as the last durable transaction.
    pub(super) fn new(options: &Options, now: Duration, durable: Lsn) -> Self {
        let mut grace = GraceClock::new(options.collection_grace);
        grace.observe(now, durable);
        Self {
            cycle: (options.collection_grace / 8).clamp(CYCLE.0, CYCLE.1),
            totals: Mutex::default(),
            memory: tokio::sync::Mutex::new(Memory {
                grace,
                oldest: None,
                manifests: None,
            }),
        }
    }

    /// Returns the totals.
    pub(super) fn totals(&self) -> CollectionTotals {
        *self.totals.lock()
    }

    /// Returns the time between two cycles.
    pub(super) fn pause(&self) -> Duration {
        self.cycle
    }

    fn add(&self, report: &CollectionReport, lost_unix_ms: Option<u64>, now_unix_ms: u64) {
        let mut totals = self.totals.lock();
        totals.manifests += report.manifests;
        totals.blobs += report.blobs;
        totals.bytes += report.bytes;
        totals.segments += report.segments;
        totals.candidates += report.suspects - report.in_grace;
        if let Some(lost) = lost_unix_ms {
            totals.lag_last_ms = now_unix_ms.saturating_sub(lost);
            totals.lag_max_ms = totals.lag_max_ms.max(totals.lag_last_ms);
        }
        totals.last_success_unix_ms = now_unix_ms;
    }
}

/// Repeats the cycle until the store closes.
pub(super) async fn task(store: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    loop {
        let Some(inner) = store.upgrade() else { return };
        let pause = inner.env.clock.sleep(inner.collection.cycle);
        drop(inner);
        if !or_closing(pause, &mut closing).await {
            return;
        }
        let Some(inner) = store.upgrade() else { return };
        match cycle(&inner).await {
            Ok(report) if report.blobs > 0 || report.manifests > 0 => {
                let CollectionReport {
                    manifests,
                    blobs,
                    bytes,
                    segments,
                    ..
                } = report;
                tracing::info!(manifests, blobs, bytes, segments, "garbage was collected");
            }
            Ok(_) => {}
            Err(Error::Closed | Error::Poisoned { .. }) => return,
            Err(Error::Cancelled) => tracing::info!("an operator cancelled the collection"),
            Err(error) => {
                tracing::warn!(%error, "garbage could not be collected; its space is not free yet; trying again");
            }
        }
    }
}

/// Runs a cycle of the task. Looks at no suspect if grace is over for none.
async fn cycle(inner: &Inner) -> Result<CollectionReport> {
    let mut cycle = Cycle::begin(inner, CollectionRequest::default()).await;
    let oldest = cycle.memory.oldest;
    let is_due = oldest.is_none_or(|oldest| matches!(cycle.due, Due::UpTo(lsn) if oldest <= lsn));
    let now_unix_ms = inner.env.clock.wall_unix_ms();
    let next_manifest = cycle.memory.manifests;
    let manifests_due = next_manifest.is_none_or(|next| next.is_due(cycle.due, now_unix_ms));
    if (is_due || manifests_due) && !inner.options.collection_manual {
        let job = inner.jobs.begin(JobKind::Collection);
        if manifests_due {
            cycle.settle_manifests(&job).await?;
        }
        if is_due {
            cycle.settle_suspects(&job).await?;
        }
    }
    cycle.end().await
}

/// Runs one cycle now.
pub(super) async fn collect(inner: &Inner, request: CollectionRequest) -> Result<CollectionReport> {
    let mut cycle = Cycle::begin(inner, request).await;
    let job = inner.jobs.begin(JobKind::Collection);
    cycle.settle_manifests(&job).await?;
    cycle.settle_suspects(&job).await?;
    drop(job);
    cycle.end().await
}

/// One cycle.
struct Cycle<'a> {
    inner: &'a Inner,
    memory: tokio::sync::MutexGuard<'a, Memory>,
    request: CollectionRequest,
    due: Due,
    report: CollectionReport,
    /// When the first of the removed blobs lost its last reference.
    lost_unix_ms: Option<u64>,
}

impl<'a> Cycle<'a> {
    /// Waits for the cycle that runs.
    async fn begin(inner: &'a Inner, request: CollectionRequest) -> Self {
        let mut memory = inner.collection.memory.lock().await;
        // Read before the clock, so that no transaction counts as older than it is.
        let durable = inner.sequencer.durable().lsn;
        let lsn = memory.grace.observe(inner.leases.now(), durable);
        let due = if request.was_closed {
            let grace = inner.options.collection_grace.as_millis();
            let grace = u64::try_from(grace).unwrap_or(u64::MAX);
            Due::Until(inner.env.clock.wall_unix_ms().saturating_sub(grace))
        } else {
            Due::UpTo(lsn)
        };
        Self {
            inner,
            memory,
            request,
            due,
            report: CollectionReport::default(),
            lost_unix_ms: None,
        }
    }

    /// Removes manifests that nothing keeps, before anything else. Their blobs become suspects, and stay for their
    /// grace.
    async fn settle_manifests(&mut self, job: &Job) -> Result<()> {
        let CollectionRequest {
            dry_run, list_max, ..
        } = self.request;
        if !dry_run {
            // Until it is finished, nothing is known of those that it has not seen.
            self.memory.manifests = None;
        }
        let pass = ManifestPass::new(self.inner, self.due, dry_run, list_max);
        let (report, next) = pass.run(job).await?;
        self.report = report;
        if !dry_run {
            self.memory.manifests = next;
        }
        Ok(())
    }

    /// Looks at all suspects of one state, and settles them a batch at a time. Ends early if the store closes.
    async fn settle_suspects(&mut self, job: &Job) -> Result<()> {
        let view = View::new(self.inner.sequencer.durable());
        let leased = self.report.leased;
        // Those that come later are of later transactions.
        let mut oldest = Lsn(view.lsn().0 + 1);
        if !self.request.dry_run {
            // Until it is finished, nothing is known of those that it has not seen.
            self.memory.oldest = None;
        }
        let mut suspects = view.suspects();
        let mut batch = Vec::new();
        while let Some((digest, suspect)) = suspects.next_resident().await? {
            job.checkpoint().await?;
            job.progress(1);
            self.report.suspects += 1;
            // Before anything of it is looked up.
            if is_in_grace(&suspect, self.due) {
                self.report.in_grace += 1;
                oldest = oldest.min(suspect.lsn);
                continue;
            }
            let verdict = view.read(|view| judge(view, &digest, self.due)).await?;
            if self.request.dry_run {
                self.preview(digest, verdict);
                continue;
            }
            if let Verdict::Remove(_) = verdict {
                // Loaded now, so that it is in memory under the sequencer's lock.
                let holders = view.read(|view| view.holder_ids(&digest, UNLINKS_MAX));
                for holder in holders.await? {
                    view.read(|view| view.read_ahead_of_loss(holder, &digest))
                        .await?;
                }
            }
            batch.push((digest, matches!(verdict, Verdict::Remove(_))));
            if batch.len() >= BATCH {
                self.settle(std::mem::take(&mut batch)).await?;
            }
        }
        self.settle(batch).await?;
        if !self.request.dry_run {
            // Those that were protected are looked at again in the next cycle.
            self.memory.oldest = (self.report.leased == leased).then_some(oldest);
        }
        Ok(())
    }

    /// Reports what a run would do with a suspect.
    fn preview(&mut self, digest: Digest, verdict: Verdict) {
        match verdict {
            Verdict::Remove(_) if self.inner.leases.holds(&digest) => self.report.leased += 1,
            Verdict::Remove(extent) => self.report.add(digest, &extent, self.request.list_max),
            Verdict::Clear => self.report.cleared += 1,
            Verdict::NotSuspect | Verdict::InGrace => {}
        }
    }

    /// Settles suspects, each with whether it may be dead: durable on return.
    async fn settle(&mut self, mut batch: Vec<(Digest, bool)>) -> Result<()> {
        let inner = self.inner;
        while !batch.is_empty() {
            // Before they are condemned, because checks of what is condemned wait.
            inner.checkpoints.wait_for_room(inner).await;
            let mut condemned = Vec::new();
            batch.retain(|(digest, dead)| {
                let one = dead.then(|| inner.leases.condemn(*digest)).flatten();
                let is_protected = *dead && one.is_none();
                self.report.leased += u64::from(is_protected);
                condemned.extend(one);
                !is_protected
            });
            let digests = batch.iter().map(|(digest, _)| *digest).collect();
            let mut candidates = Candidates::new(digests, condemned);
            let (sequencer, due) = (Arc::clone(&inner.sequencer), self.due);
            let queue = move || sequencer.remove_dead(&mut candidates, due);
            let Removals {
                removed,
                cleared,
                lost_unix_ms,
                more,
                waiting,
            } = resident_off_worker(&inner.env, queue).await?;
            if let Some(waiting) = waiting {
                let committed = waiting.await.map_err(|_gone| Error::Closed)??;
                if !removed.is_empty() {
                    self.report.lsn = Some(committed.lsn);
                }
            }
            self.report.cleared += cleared;
            self.lost_unix_ms = self.lost_unix_ms.into_iter().chain(lost_unix_ms).min();
            for (digest, extent) in &removed {
                self.report.add(*digest, extent, self.request.list_max);
            }
            // The rest of a blob with very many links.
            let is_removed = |digest: &Digest| removed.iter().any(|(gone, _)| gone == digest);
            batch.retain(|(digest, _)| more && !is_removed(digest));
            inner.checkpoints.start_if_due(inner);
        }
        Ok(())
    }

    /// Unlinks segments without a live blob; compacts others if that was asked for. Returns the report.
    async fn end(mut self) -> Result<CollectionReport> {
        let (inner, full) = (self.inner, self.request.full);
        if self.request.dry_run {
            if full {
                self.report.compaction = compaction::preview(inner).await?;
            }
            return Ok(self.report);
        }
        self.report.segments = reclaim(inner).await?;
        let now_unix_ms = inner.env.clock.wall_unix_ms();
        inner
            .collection
            .add(&self.report, self.lost_unix_ms, now_unix_ms);
        // The next cycle need not wait for compaction.
        drop(self.memory);
        if full {
            self.report.compaction = compaction::compact(inner, Effort::Full, None).await?;
            inner.segments.files().unlinked().await;
        }
        Ok(self.report)
    }
}

impl CollectionReport {
    fn add(&mut self, digest: Digest, extent: &Extent, list_max: usize) {
        self.blobs += 1;
        self.bytes += extent.length;
        if self.listed.len() < list_max {
            self.listed.push(CollectedBlob {
                digest,
                bytes: extent.length,
            });
        }
    }
}
