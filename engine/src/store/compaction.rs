//! Compaction, beside all other work: copying live blobs out of segments that are mostly garbage.
//!
//! Owns: [`Compaction`] and [`compact_fully`], the task that repeats it, and its pace. Refuses: choosing segments
//! (`compaction`), queueing moves (`commit::moves`) and unlinking (`store::reclaim`).
//!
//! Invariants: one compaction runs at a time; the task's gives way to that of an operator. A record is checked as it is
//! read, and copied with its checksums; one that is damaged stays where it is, and so does its segment. A copy is
//! durable before the transaction that places it. So a stop at any point loses nothing, and the next run continues with
//! the blobs that are still in the segment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::watch;

use super::Inner;
use super::background::or_closing;
use super::collection::Waits;
use super::reclaim::reclaim;
use super::repeated_job::RepeatedJob;
use crate::catalog::View;
use crate::commit::{Move, Moves};
use crate::compaction::{Candidate, Effort, choose};
use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::format::record::RecordPlaces;
use crate::io::Class;
use crate::jobs::{Job, JobKind};
use crate::pace::Pace;
use crate::recovery::apply::segment_sizes;
use crate::segment::{SmallBlob, WalkedRecord};
use crate::sync::{AtomicU64, Mutex};
use crate::table::resident;

/// Most blobs that are moved together: their transactions wait for one sync.
const BATCH_BLOBS: usize = 64;
/// Most blobs that one transaction moves. It is computed under the sequencer's lock.
const TRANSACTION_BLOBS: usize = 16;
/// Bytes as which a move counts at least in the pace: moving a smaller blob costs as much.
const BLOB_BYTES_MIN: u64 = 4 << 10;
/// Most bytes of a segment that are held in memory, beside one record.
const BATCH_SPAN_BYTES: u64 = 4 << 20;
/// Time until a segment with damaged blobs is tried again, and a compaction that an operator cancelled.
const RETRY: Duration = Duration::from_hours(1);

/// What a compaction did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionReport {
    /// Segments whose live blobs were moved, or would be.
    pub segments: u64,
    /// Blobs that were moved. In a dry run this is not known.
    pub blobs: u64,
    /// Bytes of their records, or of those that would be moved.
    pub moved_bytes: u64,
    /// Bytes read from the segments.
    pub read_bytes: u64,
    /// Dead bytes of these segments, whose space comes back.
    pub freed_bytes: u64,
    /// Segments that were left as they are: blobs in them are damaged, they are in use, or there is no space for
    /// copies.
    pub left: u64,
}

impl CompactionReport {
    /// Adds another compaction.
    fn add(&mut self, other: &Self) {
        self.segments += other.segments;
        self.blobs += other.blobs;
        self.moved_bytes += other.moved_bytes;
        self.read_bytes += other.read_bytes;
        self.freed_bytes += other.freed_bytes;
        self.left += other.left;
    }
}

/// What compaction remembers between two runs.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// Segments that lost a live blob, until they are compacted or found to be not worth it.
    shrunk: Mutex<BTreeSet<SegmentId>>,
    totals: Mutex<CompactionReport>,
    /// Held by the compaction that runs.
    memory: tokio::sync::Mutex<Memory>,
    /// Number of requests that wait for the compaction that runs.
    waiting: AtomicU64,
}

#[derive(Debug, Default)]
struct Memory {
    /// Whether the segments of earlier opens were looked at.
    knows_all: bool,
    /// Segments that a run left with this number of live blobs, because these are damaged, and when.
    stuck: BTreeMap<SegmentId, (u64, Duration)>,
    /// Nothing runs in the background before this time, because an operator cancelled it.
    not_before: Duration,
}

impl Compaction {
    /// Notes a segment that lost a live blob.
    pub(super) fn add_candidate(&self, id: SegmentId) {
        self.shrunk.lock().insert(id);
    }

    /// Returns the totals since the store was opened.
    pub(super) fn totals(&self) -> CompactionReport {
        *self.totals.lock()
    }
}

/// Compacts in the background until the store closes.
pub(super) async fn task(store: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    let mut job = RepeatedJob::new(JobKind::Compaction);
    loop {
        let Some(inner) = store.upgrade() else { return };
        let pause = inner.env.clock.sleep(inner.collection.pause());
        drop(inner);
        if !or_closing(job.rest(pause), &mut closing).await {
            return;
        }
        let Some(inner) = store.upgrade() else { return };
        let rate = inner.options.compaction_rate_bytes;
        if rate == 0 || inner.options.collection_manual {
            continue;
        }
        let ended = compact_some(&inner, &mut job, rate).await;
        job.end();
        match ended {
            Ok(report) if report.segments > 0 => {
                let CompactionReport {
                    segments,
                    blobs,
                    moved_bytes,
                    freed_bytes,
                    ..
                } = report;
                tracing::info!(
                    segments,
                    blobs,
                    moved_bytes,
                    freed_bytes,
                    "segments were compacted"
                );
            }
            Ok(_) => {}
            Err(Error::Closed | Error::Poisoned { .. }) => return,
            Err(Error::Cancelled) => tracing::info!("an operator cancelled the compaction"),
            Err(Error::Paused) => tracing::info!("an operator paused the compaction"),
            Err(error) => {
                tracing::warn!(%error, "segments could not be compacted; their space is not free yet; trying again");
            }
        }
    }
}

/// Compacts segments that are worth it in the background, at `rate` bytes per second.
async fn compact_some(inner: &Inner, job: &mut RepeatedJob, rate: u64) -> Result<CompactionReport> {
    let mut memory = inner.compaction.memory.lock().await;
    if inner.env.clock.monotonic() < memory.not_before {
        return Ok(CompactionReport::default());
    }
    let chosen = memory.choose(inner, Effort::Background).await?;
    if chosen.is_empty() {
        return Ok(CompactionReport::default());
    }
    compact(inner, &mut memory, chosen, job.begin(&inner.jobs), rate).await
}

/// Compacts until hardly any dead bytes are left, as the next phase of `job`.
pub(super) async fn compact_fully(inner: &Inner, job: &Job) -> Result<CompactionReport> {
    let waits = Waits::begin(&inner.compaction.waiting);
    let mut memory = job.unless_stopped(inner.compaction.memory.lock()).await?;
    drop(waits);
    let chosen = memory.choose(inner, Effort::Full).await?;
    job.begin_phase(JobKind::Compaction);
    let report = compact(inner, &mut memory, chosen, job, 0).await?;
    inner.segments.files().unlinked().await;
    Ok(report)
}

/// Compacts segments at `rate` bytes per second, and unlinks them; 0 is no limit, for a request. Without a request, it
/// ends before a segment if one waits.
async fn compact(
    inner: &Inner,
    memory: &mut Memory,
    chosen: Vec<Candidate>,
    job: &Job,
    rate: u64,
) -> Result<CompactionReport> {
    let mut report = CompactionReport::default();
    job.set_total(chosen.iter().map(|one| one.live).sum());
    let mut pace = Pace::new(rate, inner.env.clock.monotonic());
    for candidate in chosen {
        if rate > 0 && inner.compaction.waiting.load(Ordering::Relaxed) > 0 {
            break;
        }
        if inner.segments.is_in_use(candidate.id) || !has_room(inner, candidate.live).await {
            report.left += 1;
            continue;
        }
        let mut run = Run {
            inner,
            job,
            pace: &mut pace,
            report: CompactionReport::default(),
            left_because: None,
        };
        let ended = async {
            run.segment(&candidate).await?;
            memory.note_end(&candidate, &mut run).await?;
            reclaim(inner).await
        };
        let ended = ended.await;
        inner.compaction.totals.lock().add(&run.report);
        report.add(&run.report);
        if let Err(error) = ended {
            if matches!(error, Error::Cancelled) {
                memory.not_before = inner.env.clock.monotonic() + RETRY;
            }
            return Err(error);
        }
    }
    Ok(report)
}

/// Returns whether there is space for copies of `live` bytes, beside what commits and checkpoints need.
async fn has_room(inner: &Inner, live: u64) -> bool {
    let space = inner
        .env
        .io
        .space(Class::Directory.call(), &inner.path)
        .await;
    let needed = live.saturating_add(inner.options.reserve_bytes);
    // Some file systems report no sizes at all.
    space.is_ok_and(|space| space.total_bytes == 0 || space.available_bytes >= needed)
}

/// Returns what a full compaction would do.
pub(super) async fn preview(inner: &Inner) -> Result<CompactionReport> {
    let mut report = CompactionReport::default();
    for candidate in choose(all(inner).await?, Effort::Full) {
        report.segments += 1;
        report.moved_bytes += candidate.live;
        report.freed_bytes += candidate.dead();
    }
    Ok(report)
}

/// Lists all segments, with the sizes of their files.
async fn all(inner: &Inner) -> Result<Vec<Candidate>> {
    let view = View::new(inner.sequencer.durable());
    let sizes = segment_sizes(&*inner.env.io, &inner.path).await?;
    let (mut found, mut segments) = (Vec::new(), view.segments());
    while let Some((id, used)) = segments.next_resident().await? {
        found.push(Candidate::new(id, &used, sizes.get(&id).copied()));
    }
    Ok(found)
}

impl Memory {
    /// Chooses the segments that are worth `effort`. Those that are being written are sealed, so that they can be
    /// compacted or unlinked.
    async fn choose(&mut self, inner: &Inner, effort: Effort) -> Result<Vec<Candidate>> {
        let (chosen, empty_in_use) = match effort {
            Effort::Full => (choose(all(inner).await?, effort), false),
            Effort::Background => self.shrunk(inner).await?,
        };
        let in_use = chosen.iter().any(|one| inner.segments.is_in_use(one.id));
        if empty_in_use || in_use {
            inner.segments.appender().seal().await?;
            reclaim(inner).await?;
        }
        Ok(chosen)
    }

    /// Chooses among the segments that lost a blob, and once after the open among all. Also returns whether one without
    /// a live blob is still being written.
    async fn shrunk(&mut self, inner: &Inner) -> Result<(Vec<Candidate>, bool)> {
        let view = View::new(inner.sequencer.durable());
        if !self.knows_all {
            let mut segments = view.segments();
            while let Some((id, _)) = segments.next_resident().await? {
                inner.compaction.add_candidate(id);
            }
            self.knows_all = true;
        }
        let (now, ids) = (
            inner.env.clock.monotonic(),
            inner.compaction.shrunk.lock().clone(),
        );
        let (mut found, mut done, mut empty_in_use) = (Vec::new(), Vec::new(), false);
        for id in ids {
            match view.read(|view| view.segment(id)).await? {
                None if inner.segments.is_in_use(id) => empty_in_use = true,
                None => done.push(id),
                Some(used) => {
                    let stuck = self.stuck.get(&id);
                    let is_stuck = stuck
                        .is_some_and(|(live, at)| *live == used.live_blobs && now < *at + RETRY);
                    if !is_stuck {
                        found.push(Candidate::new(id, &used, None));
                    }
                }
            }
        }
        let worth = choose(found.clone(), Effort::Background);
        // They are added again when they lose another blob.
        done.extend(found.iter().map(|one| one.id));
        let mut shrunk = inner.compaction.shrunk.lock();
        for id in done {
            if !worth.iter().any(|one| one.id == id) {
                shrunk.remove(&id);
                self.stuck.remove(&id);
            }
        }
        drop(shrunk);
        Ok((worth, empty_in_use))
    }

    /// Looks at what a run left in a segment. Logs once that it stays.
    async fn note_end(&mut self, candidate: &Candidate, run: &mut Run<'_>) -> Result<()> {
        let (inner, report) = (run.inner, &mut run.report);
        let view = View::new(inner.sequencer.durable());
        if let Some(left) = view.read(|view| view.segment(candidate.id)).await? {
            let now = inner.env.clock.monotonic();
            let known = self.stuck.insert(candidate.id, (left.live_blobs, now));
            report.left = 1;
            if known.is_none_or(|(live, _)| live != left.live_blobs) {
                let (segment, blobs) = (candidate.id, left.live_blobs);
                match run.left_because.take() {
                    Some(why) => {
                        tracing::error!(%segment, blobs, %why, "a segment could not be compacted, and its dead bytes stay; check the drive");
                    }
                    None => {
                        tracing::error!(%segment, blobs, "a segment could not be compacted, and its dead bytes stay, because blobs in it are damaged; push the content again that `tonnage scrub` reports; compaction tries again every hour");
                    }
                }
            }
        } else {
            self.stuck.remove(&candidate.id);
            inner.compaction.shrunk.lock().remove(&candidate.id);
            report.segments = 1;
            report.freed_bytes = candidate.dead();
        }
        Ok(())
    }
}

/// The compaction of one segment.
struct Run<'a> {
    inner: &'a Inner,
    job: &'a Job,
    pace: &'a mut Pace,
    report: CompactionReport,
    /// Why the segment stays, if not for damaged blobs.
    left_because: Option<String>,
}

impl Run<'_> {
    /// Moves all live and intact blobs of a segment.
    async fn segment(&mut self, candidate: &Candidate) -> Result<()> {
        let inner = self.inner;
        let mut records = match inner.segments.records(candidate.id).await {
            Ok(records) => records,
            Err(error) => return self.unreadable(error),
        };
        if !records.has_header() {
            self.left_because = Some("its header is damaged".to_owned());
        }
        let mut batch = Vec::new();
        loop {
            let record = match records.next().await {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error) => {
                    self.flush(batch).await?;
                    return self.unreadable(error);
                }
            };
            self.spend(records.take_read_bytes()).await?;
            if !self.is_movable(&record).await? {
                continue;
            }
            let content = match records.read(&record).await {
                Ok(content) => content,
                Err(error) if error.is_not_attempted() => return Err(error),
                Err(error) => {
                    if self.is_movable(&record).await? {
                        tracing::error!(%error, "compaction found damage; the blob stays where it is");
                        records.mark(&record, &error);
                    }
                    continue;
                }
            };
            let first = batch
                .first()
                .map_or(&record, |(first, _): &(WalkedRecord, _)| first);
            let span = record.extent.offset + record.extent.length - first.extent.offset;
            let blob = SmallBlob {
                payload: content.payload,
                length: record.extent.length,
                digest: record.digest,
                checksums: content.checksums,
            };
            batch.push((record, blob));
            if batch.len() >= BATCH_BLOBS || span >= BATCH_SPAN_BYTES {
                self.flush(std::mem::take(&mut batch)).await?;
            }
        }
        self.flush(batch).await
    }

    /// Decides about a segment that cannot be opened or read. It may be gone, because its last blob was removed. One
    /// that is damaged stays.
    fn unreadable(&mut self, error: Error) -> Result<()> {
        if error.is_not_attempted() {
            return Err(error);
        }
        self.left_because = Some(error.to_string());
        Ok(())
    }

    /// Returns whether a record is the place of a blob that is not known to be damaged.
    async fn is_movable(&self, record: &WalkedRecord) -> Result<bool> {
        let WalkedRecord { digest, extent } = record;
        let view = View::new(self.inner.sequencer.durable());
        let stored = view.read(|view| view.blob(digest)).await?;
        let is_here = stored.is_some_and(|stored| stored.extent == *extent);
        Ok(is_here && !self.inner.segments.damaged().contains(digest, extent))
    }

    /// Writes copies and places them: durable on return.
    async fn flush(&mut self, batch: Vec<(WalkedRecord, SmallBlob)>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let inner = self.inner;
        let appender = inner.segments.appender();
        let copies = batch.into_iter().map(|(record, blob)| async move {
            let to = appender.append_moved(blob).await?;
            let (digest, from) = (record.digest, record.extent);
            let bytes = RecordPlaces::of(&from).map_or(0, |places| places.occupied_bytes());
            Ok::<_, Error>((bytes, Move { digest, from, to }))
        });
        let (sizes, moves): (Vec<_>, Vec<_>) = try_join_all(copies).await?.into_iter().unzip();
        inner.checkpoints.wait_for_room(inner).await;
        let damaged = Arc::clone(inner.segments.damaged());
        let mut queued = Vec::new();
        for moves in moves.chunks(TRANSACTION_BLOBS) {
            queued.push(resident(|| inner.sequencer.place_moved(moves, &damaged)).await?);
        }
        for Moves { placed, waiting } in queued {
            if let Some(waiting) = waiting {
                waiting.await.map_err(|_gone| Error::Closed)??;
            }
            for (digest, extent) in &placed {
                damaged.keep_only(digest, extent);
            }
            self.report.blobs += placed.len() as u64;
        }
        inner.checkpoints.start_if_due(inner);
        let moved: u64 = sizes.iter().sum();
        self.report.moved_bytes += moved;
        self.job.progress(moved);
        let counted = sizes.iter().map(|bytes| (*bytes).max(BLOB_BYTES_MIN));
        self.keep_pace(counted.sum()).await
    }

    /// Counts what was read from the segment, and keeps the pace.
    async fn spend(&mut self, read: u64) -> Result<()> {
        if read == 0 {
            return Ok(());
        }
        self.report.read_bytes += read;
        self.keep_pace(read).await
    }

    /// Waits as long as the budget and the operator want.
    async fn keep_pace(&mut self, bytes: u64) -> Result<()> {
        let inner = self.inner;
        let wait = self.pace.spend(bytes, inner.env.clock.monotonic());
        if wait > Duration::ZERO {
            or_closing(inner.env.clock.sleep(wait), &mut inner.closing.subscribe()).await;
        }
        if *inner.closing.borrow() {
            return Err(Error::Closed);
        }
        self.job.checkpoint().await
    }
}
