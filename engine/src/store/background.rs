//! The tasks of an open store, and when each acts.
//!
//! Owns: the loops around checkpoints, segment ids and expiry, and starting all. Refuses: the work itself.
//!
//! Invariants: a task holds the store weakly, so that a store that is dropped without a close ends its tasks; only the journal
//! task outlives it, until its queue is empty, and it keeps the store's lock that long.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::{Inner, damage, sweep};
use crate::checkpoint::{self, Done, Facts, History, Since, Thresholds};
use crate::commit::Frozen;
use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::journal::Position;
use crate::segment::RESERVE_IDS;
use crate::sync::{AtomicBool, Mutex, Notify};
use crate::table::Site;
use crate::upload::LOOK_INTERVAL;

/// How often expired leases and uploads are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_mins(1);
/// Pause after a checkpoint failed (a full disk, mostly), before the next attempt.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(10);

/// Checkpoints of an open store: one at a time.
#[derive(Debug)]
pub(super) struct Checkpoints {
    site: Site,
    progress: tokio::sync::Mutex<Progress>,
    due: Arc<Notify>,
    running: AtomicBool,
    /// Journal position of the last checkpoint, for the policy.
    last: Mutex<Position>,
}

#[derive(Debug)]
struct Progress {
    /// The checkpoints on disk.
    history: History,
    /// Frozen by an attempt that failed or was dropped; the next one goes on with it.
    pending: Option<Frozen>,
}

/// What a checkpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointReport {
    /// Bytes of new base files; 0 if the last checkpoint was of the same state.
    pub bytes_written: u64,
    /// New base files.
    pub files_written: usize,
}

impl Checkpoints {
    /// Continues behind the checkpoints in `history`, the newest of which ends at `last`.
    pub(super) fn new(site: Site, history: History, last: Position) -> Self {
        Self {
            site,
            progress: tokio::sync::Mutex::new(Progress {
                history,
                pending: None,
            }),
            due: Arc::default(),
            running: AtomicBool::new(false),
            last: Mutex::new(last),
        }
    }

    /// Back-pressure: waits while a checkpoint runs and the live delta has grown to twice its budget.
    pub(super) async fn wait_for_room(&self, inner: &Inner) {
        loop {
            let mut published = pin!(inner.sequencer.published.notified());
            published.as_mut().enable();
            let full = inner.sequencer.delta_bytes() > 2 * inner.options.delta_budget_bytes;
            if !full || !self.running.load(Ordering::Acquire) {
                return;
            }
            published.await;
        }
    }

    /// Wakes the checkpoint task if the policy says so.
    pub(super) fn poke_if_due(&self, inner: &Inner) {
        let since = Since {
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

    /// Journal written since the last checkpoint, counting whole files.
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
        let frozen = match progress.pending.take() {
            Some(frozen) => frozen,
            None => match inner.sequencer.freeze()? {
                Some(frozen) => frozen,
                None => unreachable!(
                    "only checkpoints freeze, one at a time, and remember what they froze"
                ),
            },
        };
        // Until it is in a base, the next attempt goes on with it: also if this future is dropped.
        progress.pending = Some(frozen.clone());
        let running = Running::new(self, inner);
        let Done {
            base,
            history,
            bytes_written,
            files_written,
            ..
        } = checkpoint::run(
            &self.site,
            &progress.history,
            facts(&frozen),
            &frozen.state.layers,
        )
        .await?;
        drop(running);
        inner.sequencer.install(&base);
        *self.last.lock() = frozen.position;
        progress.history = history;
        progress.pending = None;
        Ok(CheckpointReport {
            bytes_written,
            files_written,
        })
    }
}

/// A checkpoint runs until this drops; then those who wait for room look again.
struct Running<'a> {
    checkpoints: &'a Checkpoints,
    inner: &'a Inner,
}

impl<'a> Running<'a> {
    fn new(checkpoints: &'a Checkpoints, inner: &'a Inner) -> Self {
        checkpoints.running.store(true, Ordering::Release);
        Self { checkpoints, inner }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.checkpoints.running.store(false, Ordering::Release);
        self.inner.sequencer.published.notify_waiters();
    }
}

fn facts(frozen: &Frozen) -> Facts {
    Facts {
        lsn: frozen.state.lsn,
        journal_number: frozen.position.number,
        journal_offset: frozen.position.offset,
        next_repository: frozen.state.next_repository,
        next_segment: frozen.state.segment_limit.0,
    }
}

/// Starts the tasks that end with the store.
pub(super) fn start(inner: &Arc<Inner>) {
    let spawn = &inner.env.spawn;
    spawn.spawn(
        "checkpoint",
        Box::pin(checkpoints(
            Arc::downgrade(inner),
            Arc::clone(&inner.checkpoints.due),
            inner.closing.subscribe(),
        )),
    );
    spawn.spawn(
        "segment-ids",
        Box::pin(segment_ids(
            Arc::downgrade(inner),
            inner.closing.subscribe(),
        )),
    );
    spawn.spawn(
        "sweep",
        Box::pin(sweep::task(
            Arc::downgrade(inner),
            Arc::clone(&inner.deleted),
            inner.closing.subscribe(),
        )),
    );
    let damaged = Arc::clone(inner.segments.damaged());
    spawn.spawn(
        "damage",
        Box::pin(damage::task(
            Arc::downgrade(inner),
            damaged,
            inner.closing.subscribe(),
        )),
    );
    spawn.spawn(
        "quiet-uploads",
        Box::pin(quiet_uploads(
            Arc::downgrade(inner),
            inner.uploads.held(),
            inner.closing.subscribe(),
        )),
    );
    spawn.spawn(
        "expiry",
        Box::pin(expiry(Arc::downgrade(inner), inner.closing.subscribe())),
    );
}

/// Resolves to false when the store closes first.
pub(super) async fn or_closing(
    event: impl Future<Output = ()>,
    closing: &mut watch::Receiver<bool>,
) -> bool {
    // An error means that the store was dropped.
    let closed = pin!(closing.wait_for(|closing| *closing));
    matches!(select(pin!(event), closed).await, Either::Left(_))
}

async fn checkpoints(store: Weak<Inner>, due: Arc<Notify>, mut closing: watch::Receiver<bool>) {
    while or_closing(due.notified(), &mut closing).await {
        let Some(inner) = store.upgrade() else { return };
        if let Err(error) = inner.checkpoints.run(&inner).await {
            if inner.poison.cause().is_some() {
                return;
            }
            tracing::error!(%error, "no checkpoint could be written; nothing is lost, but memory grows and the next start replays more");
            let pause = inner.env.clock.sleep(CHECKPOINT_RETRY);
            drop(inner);
            due.notify_one();
            if !or_closing(pause, &mut closing).await {
                return;
            }
        }
    }
}

async fn segment_ids(store: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    loop {
        let Some(ids) = store
            .upgrade()
            .map(|inner| Arc::clone(inner.segments.ids()))
        else {
            return;
        };
        if !or_closing(ids.low(), &mut closing).await {
            return;
        }
        let Some(inner) = store.upgrade() else { return };
        if let Err(error) = reserve(&inner).await {
            if inner.poison.cause().is_some() {
                // No id will ever come: whoever waits for one is told so.
                ids.wake();
                return;
            }
            tracing::warn!(%error, "segment ids could not be reserved; uploads wait");
            let pause = inner.env.clock.sleep(Duration::from_secs(1));
            drop(inner);
            if !or_closing(pause, &mut closing).await {
                return;
            }
        }
    }
}

/// Reserves the next block of segment ids, durable on return.
pub(super) async fn reserve(inner: &Inner) -> Result<()> {
    let ids = inner.segments.ids();
    let limit = SegmentId(ids.limit().0 + RESERVE_IDS);
    let waiting = inner.sequencer.reserve_segments(limit)?;
    waiting.await.map_err(|_gone| Error::Closed)??;
    ids.raise(limit);
    Ok(())
}

/// Looks after uploads while one of them holds memory or a descriptor.
async fn quiet_uploads(store: Weak<Inner>, held: Arc<Notify>, mut closing: watch::Receiver<bool>) {
    while or_closing(held.notified(), &mut closing).await {
        let mut holding = true;
        while holding {
            let Some(inner) = store.upgrade() else { return };
            let pause = inner.env.clock.sleep(LOOK_INTERVAL);
            drop(inner);
            if !or_closing(pause, &mut closing).await {
                return;
            }
            let Some(inner) = store.upgrade() else { return };
            let put_away = async { holding = inner.uploads.put_away_quiet().await };
            // Given up at the close, which writes all that is left.
            if !or_closing(put_away, &mut closing).await {
                return;
            }
        }
    }
}

async fn expiry(store: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    loop {
        let Some(pause) = store
            .upgrade()
            .map(|inner| inner.env.clock.sleep(EXPIRY_INTERVAL))
        else {
            return;
        };
        if !or_closing(pause, &mut closing).await {
            return;
        }
        let Some(inner) = store.upgrade() else { return };
        inner.leases.expire();
        inner.uploads.expire(inner.env.clock.monotonic());
    }
}
