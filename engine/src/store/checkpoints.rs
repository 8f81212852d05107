//! Checkpoints and merges of an open store.
//!
//! Owns: [`Checkpoints`]: what is frozen and what is published, and the back-pressure on commits. A checkpoint writes
//! the frozen delta as a run. A merge combines several runs into one. It takes long, so it runs beside checkpoints;
//! only publishing is one at a time. Also the context of all run files, with what was found damaged in them. Refuses:
//! when to act (`checkpoint::is_due`, `table::Tiers`) and how rows are written (`table`).
//!
//! Invariant: the runs of the state are those of the newest durable checkpoint.

use std::io;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::Inner;
use super::background::or_closing;
use crate::checkpoint::{self, Backlog, History, Positions, Published, Thresholds};
use crate::commit::Frozen;
use crate::error::{Error, Result};
use crate::io::{Class, IoError};
use crate::journal::Position;
use crate::options::RUNS_MAX;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Notify};
use crate::table::{self, Runs, TableContext, resident};

/// Bytes that a merge leaves free on the disk: more than the journal may take before deletes free space.
const MERGE_LEAVES_BYTES: u64 = 256 << 20;

/// Checkpoints of an open store.
#[derive(Debug)]
pub(super) struct Checkpoints {
    context: Arc<TableContext>,
    progress: tokio::sync::Mutex<Progress>,
    due: Arc<Notify>,
    running: AtomicBool,
    merge_due: Arc<Notify>,
    merging: AtomicBool,
    /// Journal position of the last checkpoint, for the policy.
    last: Mutex<Position>,
    flushed_bytes: AtomicU64,
    merged_bytes: AtomicU64,
}

#[derive(Debug)]
struct Progress {
    /// The checkpoints on disk.
    history: History,
    /// The delta that a failed or dropped attempt froze; the next attempt continues with it.
    pending: Option<Frozen>,
}

/// The result of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointReport {
    /// Bytes of the new run; 0 if the last checkpoint was of the same state.
    pub bytes_written: u64,
}

/// The runs of an open store, and the bytes written since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunStats {
    /// Number of runs.
    pub runs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Runs whose filter and pages are not all checked yet: an open after a clean stop leaves that to the background.
    pub unchecked: u64,
    /// Whether a run was found damaged since the store was opened. The next open rebuilds it.
    pub damaged: bool,
    /// Bytes that checkpoints wrote.
    pub flushed_bytes: u64,
    /// Bytes that merges wrote.
    pub merged_bytes: u64,
}

impl Checkpoints {
    /// Creates the state after the checkpoints in `history`, the newest of which ends at `last`.
    pub(super) fn new(context: TableContext, history: History, last: Position) -> Self {
        Self {
            context: Arc::new(context),
            progress: tokio::sync::Mutex::new(Progress {
                history,
                pending: None,
            }),
            due: Arc::default(),
            running: AtomicBool::new(false),
            merge_due: Arc::default(),
            merging: AtomicBool::new(false),
            last: Mutex::new(last),
            flushed_bytes: AtomicU64::new(0),
            merged_bytes: AtomicU64::new(0),
        }
    }

    /// Returns the notification that a checkpoint is due.
    pub(super) fn due(&self) -> Arc<Notify> {
        Arc::clone(&self.due)
    }

    /// Returns the notification that runs may be due for a merge.
    pub(super) fn merge_due(&self) -> Arc<Notify> {
        Arc::clone(&self.merge_due)
    }

    /// Delays a commit (back-pressure). Waits while a checkpoint runs and the live delta exceeds twice its budget,
    /// and while a merge runs and there are more than [`RUNS_MAX`] runs.
    pub(super) async fn wait_for_room(&self, inner: &Inner) {
        loop {
            let mut published = pin!(inner.sequencer.published.notified());
            published.as_mut().enable();
            let full = inner.sequencer.delta_bytes() > 2 * inner.options.delta_budget_bytes;
            let flushing = full && self.running.load(Ordering::Acquire);
            let merging = self.merging.load(Ordering::Acquire)
                && inner.sequencer.durable().layers.runs().count() > RUNS_MAX;
            if !flushing && !merging {
                return;
            }
            published.await;
        }
    }

    /// Wakes the checkpoint task if the policy says so.
    pub(super) fn start_if_due(&self, inner: &Inner) {
        let since = Backlog {
            delta_bytes: inner.sequencer.delta_bytes(),
            journal_bytes: self.journal_bytes(inner),
            running: self.running.load(Ordering::Acquire),
        };
        let thresholds = Thresholds {
            delta_bytes: inner.options.delta_budget_bytes,
            ..Thresholds::default()
        };
        if checkpoint::is_due(since, thresholds) {
            self.due.notify_one();
        }
    }

    /// Returns the bytes of journal written since the last checkpoint, counting whole files.
    fn journal_bytes(&self, inner: &Inner) -> u64 {
        let (last, now) = (*self.last.lock(), inner.sequencer.position());
        let files = now.number.saturating_sub(last.number);
        (files * inner.options.journal_file_bytes + now.offset).saturating_sub(last.offset)
    }

    /// Writes a checkpoint of the durable state, unless the last one is of the same state.
    pub(super) async fn run(&self, inner: &Inner) -> Result<CheckpointReport> {
        let mut progress = self.progress.lock().await;
        let durable = inner.sequencer.durable();
        let newest = progress.history.newest().map(|record| record.lsn);
        if progress.pending.is_none() && newest == Some(durable.lsn) {
            return Ok(CheckpointReport::default());
        }
        drop(durable);
        let frozen = match progress.pending.take() {
            Some(frozen) => frozen,
            None => match resident(|| inner.sequencer.freeze()).await? {
                Some(frozen) => frozen,
                None => unreachable!(
                    "only checkpoints freeze, one at a time, and remember what they froze"
                ),
            },
        };
        // Until it is in a run, the next attempt continues with it, even if this future is dropped.
        progress.pending = Some(frozen.clone());
        let running = FlagGuard::new(&self.running, inner);
        let (history, runs) = (&progress.history, runs_of(inner));
        let layers = &frozen.state.layers;
        let Published {
            runs,
            history,
            bytes_written,
            ..
        } = checkpoint::flush(&self.context, history, facts(&frozen), layers, &runs).await?;
        drop(running);
        inner.sequencer.install(&runs);
        *self.last.lock() = frozen.position;
        progress.history = history;
        let written = progress.pending.take();
        drop(progress);
        self.flushed_bytes
            .fetch_add(bytes_written, Ordering::Relaxed);
        self.merge_due.notify_one();
        // Dropping the last owner of a delta takes milliseconds.
        let dropped = inner.env.compute(move || drop((frozen, written))).await;
        dropped.unwrap_or_default();
        Ok(CheckpointReport { bytes_written })
    }

    /// Merges runs until none are due, or the store closes.
    pub(super) async fn merge(
        &self,
        inner: &Inner,
        closing: &mut watch::Receiver<bool>,
    ) -> Result<()> {
        loop {
            let runs = runs_of(inner);
            let Some(due) = runs.due(&self.context) else {
                return Ok(());
            };
            let _merging = FlagGuard::new(&self.merging, inner);
            self.check_space(inner, &runs, due.clone()).await?;
            let mut merged = None;
            let work = async { merged = Some(table::merge(&self.context, &runs, due).await) };
            // Only the merge is given up at the close: once publishing began, its outcome must be known.
            or_closing(work, closing).await;
            let Some(merged) = merged else { return Ok(()) };
            let merged = merged?;
            let mut progress = self.progress.lock().await;
            let new = merged.over(&runs_of(inner));
            let done = checkpoint::publish(&self.context, &progress.history, new).await?;
            inner.sequencer.install_merged(&done.runs);
            progress.history = done.history;
            self.merged_bytes
                .fetch_add(done.bytes_written, Ordering::Relaxed);
        }
    }

    /// Fails if the disk lacks space for a merge. It needs as much as its runs have, and must leave what deletes need.
    async fn check_space(&self, inner: &Inner, runs: &Runs, due: Range<usize>) -> Result<()> {
        let (io, path) = (&inner.env.io, &inner.path);
        let space = io.space(Class::Directory.call(), path).await;
        let space = space.map_err(|error| Error::io("ask for the space on", path, error))?;
        let references = runs.references();
        let runs = references.get(due).unwrap_or_default();
        let needed: u64 = runs.iter().map(|run| run.bytes).sum();
        if space.available_bytes > needed.saturating_add(MERGE_LEAVES_BYTES) {
            return Ok(());
        }
        let full = IoError::Failed(io::ErrorKind::StorageFull.into());
        Err(Error::io("merge runs in", &self.context.runs_dir(), full))
    }

    /// Returns what all operations on run files need.
    pub(super) fn context(&self) -> &Arc<TableContext> {
        &self.context
    }

    /// Returns the figures of the runs.
    pub(super) fn stats(&self, inner: &Inner) -> RunStats {
        let runs = runs_of(inner);
        RunStats {
            runs: runs.count() as u64,
            bytes: runs.bytes(),
            unchecked: runs.count_unchecked() as u64,
            damaged: self.context.damage.found().is_some(),
            flushed_bytes: self.flushed_bytes.load(Ordering::Relaxed),
            merged_bytes: self.merged_bytes.load(Ordering::Relaxed),
        }
    }
}

fn runs_of(inner: &Inner) -> Runs {
    inner.sequencer.durable().layers.runs().clone()
}

/// Sets a flag until it drops, then wakes the commits that wait for room.
struct FlagGuard<'a> {
    flag: &'a AtomicBool,
    inner: &'a Inner,
}

impl<'a> FlagGuard<'a> {
    fn new(flag: &'a AtomicBool, inner: &'a Inner) -> Self {
        flag.store(true, Ordering::Release);
        Self { flag, inner }
    }
}

impl Drop for FlagGuard<'_> {
    fn drop(&mut self) {
        self.flag.store(false, Ordering::Release);
        self.inner.sequencer.published.notify_waiters();
    }
}

fn facts(frozen: &Frozen) -> Positions {
    Positions {
        lsn: frozen.state.lsn,
        journal_number: frozen.position.number,
        journal_offset: frozen.position.offset,
        next_repository: frozen.state.next_repository,
        next_segment: frozen.state.segment_limit.0,
    }
}
