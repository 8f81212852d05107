//! One cycle: all suspects of one state, a batch at a time.
//!
//! Owns: [`Cycle`], how many suspects are settled at a time, and when it rests. Refuses: the rules (`collection`),
//! queueing removals (`commit::removals`), and when a cycle runs ([`super`]).
//!
//! Invariants: a digest is condemned before its removal is queued; the queued transaction keeps it condemned until it
//! is durable or has failed. A transaction removes few blobs, so no other commit waits for long.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::Memory;
use super::manifests::ManifestPass;
use super::report::{CollectionReport, CollectionRequest};
use super::rest::Rest;
use crate::catalog::View;
use crate::collection::{Due, Verdict, is_in_grace, judge};
use crate::commit::{Candidates, Removals, UNLINKS_MAX};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::Lsn;
use crate::jobs::Job;
use crate::store::Inner;
use crate::store::background::{row_seen, yield_now};
use crate::store::compaction;
use crate::store::purge;
use crate::store::reclaim::reclaim;
use crate::store::repeated_job::RepeatedJob;
use crate::table::resident_off_worker;

/// Suspects that are settled together: their transactions wait for one sync.
const BATCH: usize = 64;
/// Suspects of one transaction. It is computed under the sequencer's lock.
const TRANSACTION: usize = 8;
/// Suspects that are looked up at the same time.
const LOOKUPS: usize = 8;
/// Runs a cycle of the task. Looks at no suspect if grace is over for none.
pub(super) async fn run_due(inner: &Inner, job: &mut RepeatedJob) -> Result<CollectionReport> {
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

/// Runs one cycle now, as `job`. A full one still lacks its compaction, for which the next cycle need not wait; a dry
/// run says what that would do.
pub(in crate::store) async fn collect(
    inner: &Inner,
    job: &Job,
    request: CollectionRequest,
) -> Result<CollectionReport> {
    let CollectionRequest { dry_run, full, .. } = request;
    if request.was_closed {
        // This open ends with the cycle, and what is left of deletions holds blobs, also for a dry run.
        job.unless_stopped(purge::finished(inner)).await??;
    }
    let cycle = job.unless_stopped(Cycle::begin(inner, request, false));
    let mut cycle = cycle.await?;
    cycle.settle_manifests(job).await?;
    cycle.settle_suspects(job).await?;
    let mut report = cycle.end().await?;
    if dry_run && full {
        report.compaction = compaction::preview(inner).await?;
    }
    Ok(report)
}

/// One cycle.
struct Cycle<'a> {
    inner: &'a Inner,
    memory: tokio::sync::MutexGuard<'a, Memory>,
    request: CollectionRequest,
    rest: Rest<'a>,
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
            rest: Rest::new(inner, is_background),
            due,
            report: CollectionReport::default(),
            lost_unix_ms: None,
        }
    }

    /// Removes manifests that nothing keeps, before anything else. Their blobs become suspects, and stay for their
    /// grace.
    async fn settle_manifests(&mut self, job: &Job) -> Result<()> {
        let CollectionRequest { dry_run, .. } = self.request;
        if !dry_run {
            // Until it is finished, nothing is known of those that it has not seen.
            self.memory.manifests = None;
        }
        let pass = ManifestPass::new(self.inner, &self.rest, self.due, self.request);
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
            self.report.suspects += 1;
            row_seen(job, self.report.suspects).await?;
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
        self.rest.after(begun).await;
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
