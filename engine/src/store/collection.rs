//! Collection, beside all other work: the cycle, and the task that repeats it.
//!
//! Owns: [`Collection`] and [`collect`]. Refuses: the rules (`collection`), queueing removals (`commit::removals`), and
//! returning space (`store::reclaim`, `store::compaction`).
//!
//! Invariants: a digest is condemned before its removal is queued; the queued transaction keeps it condemned until it
//! is durable or has failed. One cycle runs at a time. A transaction removes few blobs, so no other commit waits for
//! long.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::watch;

use super::Inner;
use super::background::{or_closing, yield_now};
use super::compaction::{self, CompactionReport};
use super::purge;
use super::reclaim::reclaim;
use super::repeated_job::RepeatedJob;
use super::untagged::{CollectedManifest, ManifestPass, NextManifest};
use crate::catalog::View;
use crate::collection::{Due, GraceClock, Verdict, is_in_grace, judge};
use crate::commit::{Candidates, Removals, UNLINKS_MAX};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Lsn};
use crate::jobs::{Job, JobKind};
use crate::options::Options;
use crate::sync::{AtomicU64, Mutex};
use crate::table::resident_off_worker;

/// Suspects that are settled together: their transactions wait for one sync.
const BATCH: usize = 64;
/// Suspects of one transaction. It is computed under the sequencer's lock.
const TRANSACTION: usize = 8;
/// Suspects that are looked up at the same time.
const LOOKUPS: usize = 8;
/// How much longer than it works a cycle rests after each batch.
const REST: u32 = 3;
/// Longest rest.
const REST_MAX: Duration = Duration::from_millis(100);
/// Time after which a cycle rests no longer, so that space is back soon.
const RESTING_MAX: Duration = Duration::from_secs(20);
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
    /// Number of requests that wait for the cycle that runs.
    waiting: AtomicU64,
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
            waiting: AtomicU64::new(0),
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

    /// Waits for the cycle that runs, which no longer rests meanwhile.
    async fn lock(&self) -> tokio::sync::MutexGuard<'_, Memory> {
        let _waits = Waits::begin(&self.waiting);
        self.memory.lock().await
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

/// Counts one that waits, until it drops.
pub(super) struct Waits<'a>(&'a AtomicU64);

impl<'a> Waits<'a> {
    pub(super) fn begin(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Repeats the cycle until the store closes.
pub(super) async fn task(store: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    let mut job = RepeatedJob::new(JobKind::Collection);
    loop {
        let Some(inner) = store.upgrade() else { return };
        let pause = inner.env.clock.sleep(inner.collection.cycle);
        drop(inner);
        if !or_closing(job.rest(pause), &mut closing).await {
            return;
        }
        let Some(inner) = store.upgrade() else { return };
        let ended = cycle(&inner, &mut job).await;
        job.end();
        match ended {
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
            Err(Error::Paused) => tracing::info!("an operator paused the collection"),
            Err(error) => {
                tracing::warn!(%error, "garbage could not be collected; its space is not free yet; trying again");
            }
        }
    }
}

/// Runs a cycle of the task. Looks at no suspect if grace is over for none.
async fn cycle(inner: &Inner, job: &mut RepeatedJob) -> Result<CollectionReport> {
    let mut cycle = Cycle::begin(inner, CollectionRequest::default(), true).await;
    let oldest = cycle.memory.oldest;
    let is_due = oldest.is_none_or(|oldest| matches!(cycle.due, Due::UpTo(lsn) if oldest <= lsn));
    let now_unix_ms = inner.env.clock.wall_unix_ms();
    let next_manifest = cycle.memory.manifests;
    let manifests_due = next_manifest.is_none_or(|next| next.is_due(cycle.due, now_unix_ms));
    if (is_due || manifests_due) && !inner.options.collection_manual {
        let job = job.begin(&inner.jobs);
        if manifests_due {
            cycle.settle_manifests(job).await?;
        }
        if is_due {
            cycle.settle_suspects(job).await?;
        }
    }
    cycle.end().await
}

/// Runs one cycle now, as `job`, which continues with compaction if that was asked for.
pub(super) async fn collect(
    inner: &Inner,
    job: &Job,
    request: CollectionRequest,
) -> Result<CollectionReport> {
    let CollectionRequest { dry_run, full, .. } = request;
    if request.was_closed && !dry_run {
        // This open ends with the cycle, and what is left of deletions holds blobs.
        job.unless_stopped(purge::finished(inner)).await??;
    }
    let cycle = job.unless_stopped(Cycle::begin(inner, request, false));
    let mut cycle = cycle.await?;
    cycle.settle_manifests(job).await?;
    cycle.settle_suspects(job).await?;
    // The next cycle need not wait for compaction.
    let mut report = cycle.end().await?;
    report.compaction = match (full, dry_run) {
        (false, _) => CompactionReport::default(),
        (true, true) => compaction::preview(inner).await?,
        (true, false) => compaction::compact_fully(inner, job).await?,
    };
    Ok(report)
}

/// One cycle.
struct Cycle<'a> {
    inner: &'a Inner,
    memory: tokio::sync::MutexGuard<'a, Memory>,
    request: CollectionRequest,
    /// Whether no operator asked for it.
    is_background: bool,
    begun: Duration,
    due: Due,
    report: CollectionReport,
    /// When the first of the removed blobs lost its last reference.
    lost_unix_ms: Option<u64>,
}

impl<'a> Cycle<'a> {
    /// Waits for the cycle that runs.
    async fn begin(inner: &'a Inner, request: CollectionRequest, is_background: bool) -> Self {
        let mut memory = inner.collection.lock().await;
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
            is_background,
            begun: inner.env.clock.monotonic(),
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
            batch.push(digest);
            if batch.len() >= BATCH {
                self.settle_batch(&view, std::mem::take(&mut batch)).await?;
            }
        }
        self.settle_batch(&view, batch).await?;
        if !self.request.dry_run {
            // Those that were protected are looked at again in the next cycle.
            self.memory.oldest = (self.report.leased == leased).then_some(oldest);
        }
        Ok(())
    }

    /// Looks up suspects whose grace is over, and settles them. Rests afterwards.
    async fn settle_batch(&mut self, view: &View, digests: Vec<Digest>) -> Result<()> {
        let begun = self.inner.env.clock.monotonic();
        let mut batch = Vec::with_capacity(digests.len());
        for some in digests.chunks(LOOKUPS) {
            let verdicts = try_join_all(some.iter().map(|digest| self.look_up(view, digest)));
            for (digest, verdict) in some.iter().zip(verdicts.await?) {
                if self.request.dry_run {
                    self.preview(*digest, verdict);
                } else {
                    batch.push((*digest, matches!(verdict, Verdict::Remove(_))));
                }
            }
            yield_now().await;
        }
        self.settle(batch).await?;
        self.rest(begun).await;
        Ok(())
    }

    /// Judges a suspect. What a removal reads is in memory afterwards, so that it seldom waits under the sequencer's
    /// lock.
    async fn look_up(&self, view: &View, digest: &Digest) -> Result<Verdict> {
        let verdict = view.read(|view| judge(view, digest, self.due)).await?;
        if matches!(verdict, Verdict::Remove(_)) && !self.request.dry_run {
            let holders = view.read(|view| view.holder_ids(digest, UNLINKS_MAX));
            for holder in holders.await? {
                view.read(|view| view.read_ahead_of_loss(holder, digest))
                    .await?;
            }
        }
        Ok(verdict)
    }

    /// Leaves the machine to requests, for a multiple of the time since `begun`. A cycle that an operator asked for or
    /// waits for does not rest, and none does for long.
    async fn rest(&self, begun: Duration) {
        let (inner, clock) = (self.inner, &self.inner.env.clock);
        let now = clock.monotonic();
        let is_urgent = !self.is_background
            || inner.collection.waiting.load(Ordering::Relaxed) > 0
            || now.saturating_sub(self.begun) >= RESTING_MAX;
        let rest = (now.saturating_sub(begun) * REST).min(REST_MAX);
        if !is_urgent && rest > Duration::ZERO {
            or_closing(clock.sleep(rest), &mut inner.closing.subscribe()).await;
        }
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
            let mut left = Vec::new();
            for removals in self.queue(&batch).await? {
                left.extend(self.finish(removals).await?);
            }
            batch.retain(|(digest, _)| left.contains(digest));
            inner.checkpoints.start_if_due(inner);
        }
        Ok(())
    }

    /// Queues the transactions that settle a batch. Other commits come between them.
    async fn queue(&mut self, batch: &[(Digest, bool)]) -> Result<Vec<Removals>> {
        let (inner, due) = (self.inner, self.due);
        let mut unqueued: VecDeque<_> = batch
            .chunks(TRANSACTION)
            .map(|chunk| self.candidates(chunk))
            .collect();
        let (sequencer, mut queued) = (Arc::clone(&inner.sequencer), Vec::new());
        let queue = move || {
            while let Some(candidates) = unqueued.front_mut() {
                queued.push(sequencer.remove_dead(candidates, due)?);
                unqueued.pop_front();
            }
            Ok(std::mem::take(&mut queued))
        };
        resident_off_worker(&inner.env, queue).await
    }

    /// Condemns those that may be dead, and leaves out those that are protected.
    fn candidates(&mut self, chunk: &[(Digest, bool)]) -> Candidates {
        let (mut digests, mut condemned) = (Vec::new(), Vec::new());
        for (digest, dead) in chunk {
            let one = dead.then(|| self.inner.leases.condemn(*digest)).flatten();
            if *dead && one.is_none() {
                self.report.leased += 1;
                continue;
            }
            digests.push(*digest);
            condemned.extend(one);
        }
        Candidates::new(digests, condemned)
    }

    /// Waits until a transaction is durable, and reports what it removed. Returns what it left.
    async fn finish(&mut self, removals: Removals) -> Result<Vec<Digest>> {
        let Removals {
            removed,
            cleared,
            lost_unix_ms,
            left,
            waiting,
        } = removals;
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
        Ok(left)
    }

    /// Unlinks segments without a live blob. Returns the report.
    async fn end(mut self) -> Result<CollectionReport> {
        let inner = self.inner;
        if self.request.dry_run {
            return Ok(self.report);
        }
        self.report.segments = reclaim(inner).await?;
        let now_unix_ms = inner.env.clock.wall_unix_ms();
        inner
            .collection
            .add(&self.report, self.lost_unix_ms, now_unix_ms);
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
