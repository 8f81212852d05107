//! Collection, beside all other work: the cycle, the task that repeats it, and the removal of empty segments.
//!
//! Owns: [`Collection`] and [`collect`]. Refuses: the rules (`collection`) and queueing removals (`commit::removals`).
//!
//! Invariants: a digest is condemned before its removal is queued, and until the removal is durable. One cycle runs at a
//! time. A transaction removes few blobs, so no other commit waits for long. A segment is removed only if it is not in
//! use, writes go on, and the durable state has no live blob in it, found in this order.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::Inner;
use super::background::or_closing;
use crate::catalog::View;
use crate::collection::{GraceClock, Verdict, judge};
use crate::commit::{Candidate, Removals};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Lsn, SegmentId};
use crate::options::Options;
use crate::sync::Mutex;
use crate::table::resident_off_worker;

/// Suspects that are settled in one transaction.
const BATCH: usize = 64;
/// Shortest and longest time between two cycles; between them, an eighth of the grace.
const CYCLE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

/// What a cycle is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectionRequest {
    /// Finds what would be removed and removes nothing.
    pub dry_run: bool,
    /// Most blobs that the report names.
    pub list_max: usize,
}

/// What a cycle found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CollectionReport {
    /// Suspects that were looked at.
    pub suspects: u64,
    /// Suspects that something references, or that are not stored.
    pub cleared: u64,
    /// Dead blobs whose grace is not over.
    pub in_grace: u64,
    /// Dead blobs that a lease or work in progress protects.
    pub leased: u64,
    /// Blobs that were removed, or would be.
    pub blobs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Segments that were unlinked.
    pub segments: u64,
    /// The last transaction that removed blobs.
    pub lsn: Option<Lsn>,
    /// The first of the blobs, in the order of their digests.
    pub listed: Vec<CollectedBlob>,
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
    /// Blobs that were removed.
    pub blobs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Segments that were unlinked.
    pub segments: u64,
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
    /// Segments without a live blob that were in use.
    emptied: BTreeSet<SegmentId>,
    /// The first transaction of which a suspect is left; `None` if that is not known.
    oldest: Option<Lsn>,
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
                emptied: BTreeSet::new(),
                oldest: None,
            }),
        }
    }
}

impl Collection {
    /// Returns the totals.
    pub(super) fn totals(&self) -> CollectionTotals {
        *self.totals.lock()
    }

    fn add(&self, report: &CollectionReport, now_unix_ms: u64) {
        let mut totals = self.totals.lock();
        totals.blobs += report.blobs;
        totals.bytes += report.bytes;
        totals.segments += report.segments;
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
        match cycle(&inner, &closing).await {
            Ok(report) if report.blobs > 0 => {
                let CollectionReport {
                    blobs,
                    bytes,
                    segments,
                    ..
                } = report;
                tracing::info!(blobs, bytes, segments, "garbage was collected");
            }
            Ok(_) => {}
            Err(Error::Closed | Error::Poisoned { .. }) => return,
            Err(error) => {
                tracing::warn!(%error, "garbage could not be collected; its space is not free yet; trying again");
            }
        }
    }
}

/// Runs a cycle of the task. Does nothing if grace is over for no suspect.
async fn cycle(inner: &Inner, closing: &watch::Receiver<bool>) -> Result<CollectionReport> {
    let mut memory = inner.collection.memory.lock().await;
    let due = observe(inner, &mut memory);
    let mut report = CollectionReport::default();
    if !inner.options.collection_manual && memory.oldest.is_none_or(|oldest| oldest <= due) {
        let request = CollectionRequest::default();
        let stop = || *closing.borrow();
        sweep(inner, &mut memory, due, request, &stop, &mut report).await?;
    }
    remove_empty(inner, &mut memory, &mut report).await?;
    inner
        .collection
        .add(&report, inner.env.clock.wall_unix_ms());
    Ok(report)
}

/// Runs one cycle now.
pub(super) async fn collect(inner: &Inner, request: CollectionRequest) -> Result<CollectionReport> {
    let mut memory = inner.collection.memory.lock().await;
    let due = observe(inner, &mut memory);
    let mut report = CollectionReport::default();
    sweep(inner, &mut memory, due, request, &|| false, &mut report).await?;
    if !request.dry_run {
        remove_empty(inner, &mut memory, &mut report).await?;
        inner
            .collection
            .add(&report, inner.env.clock.wall_unix_ms());
    }
    Ok(report)
}

fn observe(inner: &Inner, memory: &mut Memory) -> Lsn {
    let now = inner.leases.now();
    memory.grace.observe(now, inner.sequencer.durable().lsn)
}

/// Looks at all suspects of one state, and settles them a batch at a time. Ends early once `stop` returns true.
async fn sweep(
    inner: &Inner,
    memory: &mut Memory,
    due: Lsn,
    request: CollectionRequest,
    stop: &(dyn Fn() -> bool + Sync),
    report: &mut CollectionReport,
) -> Result<()> {
    let view = View::new(inner.sequencer.durable());
    // Those that come later are of later transactions.
    let mut oldest = Lsn(view.lsn().0 + 1);
    // Until it is finished, nothing is known of those that it has not seen.
    memory.oldest = None;
    let mut suspects = view.suspects();
    let (mut batch, mut held) = (Vec::new(), 0);
    while let Some((digest, suspect)) = suspects.next_resident().await? {
        if stop() {
            return Ok(());
        }
        report.suspects += 1;
        let verdict = view.read(|view| judge(view, &digest, due)).await?;
        let dead = match verdict {
            Verdict::Innocent => continue,
            Verdict::InGrace(since) => {
                report.in_grace += 1;
                oldest = oldest.min(since);
                continue;
            }
            Verdict::Clear => false,
            Verdict::Remove(_) if inner.leases.holds(&digest) => {
                report.leased += 1;
                held += 1;
                oldest = oldest.min(suspect.lsn);
                continue;
            }
            Verdict::Remove(extent) => {
                if request.dry_run {
                    report.add(digest, &extent, request.list_max);
                }
                true
            }
        };
        if request.dry_run {
            report.cleared += u64::from(!dead);
            continue;
        }
        batch.push((digest, dead));
        if batch.len() >= BATCH {
            let settled = settle(
                inner,
                memory,
                std::mem::take(&mut batch),
                due,
                request,
                report,
            );
            settled.await?;
        }
    }
    settle(inner, memory, batch, due, request, report).await?;
    memory.oldest = (report.leased == held).then_some(oldest);
    Ok(())
}

/// Settles suspects, of which each may be dead: durable on return.
async fn settle(
    inner: &Inner,
    memory: &mut Memory,
    mut batch: Vec<(Digest, bool)>,
    due: Lsn,
    request: CollectionRequest,
    report: &mut CollectionReport,
) -> Result<()> {
    while !batch.is_empty() {
        // Before they are condemned, because checks of what is condemned wait.
        inner.checkpoints.wait_for_room(inner).await;
        let condemn = |&(digest, dead): &(Digest, bool)| dead.then(|| inner.leases.condemn(digest));
        let condemned: Vec<_> = batch.iter().filter_map(condemn).collect();
        report.leased += condemned.iter().filter(|one| one.is_none()).count() as u64;
        let condemned: Vec<_> = condemned.into_iter().flatten().collect();
        let candidates = batch.iter().map(|&(digest, _)| Candidate {
            digest,
            condemned: condemned.iter().any(|one| *one.digest() == digest),
        });
        let (sequencer, candidates) =
            (Arc::clone(&inner.sequencer), candidates.collect::<Vec<_>>());
        let queue = move || sequencer.remove_dead(&candidates, due);
        let Removals {
            removed,
            cleared,
            more,
            waiting,
        } = resident_off_worker(&inner.env, queue).await?;
        if let Some(waiting) = waiting {
            let committed = waiting.await.map_err(|_gone| Error::Closed)??;
            if !removed.is_empty() {
                report.lsn = Some(committed.lsn);
            }
        }
        drop(condemned);
        inner.checkpoints.start_if_due(inner);
        report.cleared += cleared;
        for (digest, extent) in &removed {
            report.add(*digest, extent, request.list_max);
            memory.emptied.insert(extent.segment);
        }
        if !more {
            break;
        }
        batch.retain(|(digest, _)| removed.iter().all(|(gone, _)| gone != digest));
    }
    Ok(())
}

/// Unlinks segments without a live blob. Those in use are looked at again after the next cycle.
async fn remove_empty(
    inner: &Inner,
    memory: &mut Memory,
    report: &mut CollectionReport,
) -> Result<()> {
    for id in memory.emptied.clone() {
        if inner.segments.is_in_use(id) {
            continue;
        }
        inner.poison.check()?;
        let view = View::new(inner.sequencer.durable());
        if view.read(|view| view.segment(id)).await?.is_none() {
            inner.segments.files().retire(id);
            report.segments += 1;
        }
        memory.emptied.remove(&id);
    }
    Ok(())
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
