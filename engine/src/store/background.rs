//! The background tasks of an open store, and when each acts.
//!
//! Owns: the loops around checkpoints, merges, segment ids and expiry, and starting all tasks. Refuses: the work
//! itself.
//!
//! Invariants: a task holds the store weakly, so a store that is dropped without a close ends its tasks. Only the
//! journal task outlives it, until its queue is empty, and holds the store's lock until then.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::{Inner, collection, compaction, damage, purge, run_checks, scrub};
use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::jobs::Job;
use crate::segment::RESERVE_IDS;
use crate::sync::Notify;
use crate::upload::SCAN_INTERVAL;

/// Time between two looks for expired leases and uploads.
const EXPIRY_INTERVAL: Duration = Duration::from_mins(1);
/// Pause after a failed checkpoint or merge (mostly a full disk) before the next attempt.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(10);

/// Rows that a scan reads before other tasks run.
const ROWS_AT_ONCE: u64 = 256;

/// Starts the tasks that end with the store.
pub(super) fn start(inner: &Arc<Inner>) {
    let spawn = &inner.env.spawn;
    spawn.spawn(
        "checkpoint",
        Box::pin(checkpoints(
            Arc::downgrade(inner),
            inner.checkpoints.due(),
            inner.closing.subscribe(),
        )),
    );
    let due = inner.checkpoints.merge_due();
    let task = merges(Arc::downgrade(inner), due, inner.closing.subscribe());
    spawn.spawn("merge", Box::pin(task));
    // Runs that earlier stops left may be due for a merge.
    inner.checkpoints.merge_due().notify_one();
    spawn.spawn(
        "segment-ids",
        Box::pin(segment_ids(
            Arc::downgrade(inner),
            inner.closing.subscribe(),
        )),
    );
    spawn.spawn(
        "purge",
        Box::pin(purge::task(
            Arc::downgrade(inner),
            Arc::clone(&inner.deleted),
            inner.closing.subscribe(),
        )),
    );
    let task = run_checks::task(Arc::downgrade(inner), inner.closing.subscribe());
    spawn.spawn("run-checks", Box::pin(task));
    let task = collection::task(Arc::downgrade(inner), inner.closing.subscribe());
    spawn.spawn("collection", Box::pin(task));
    let task = scrub::task(Arc::downgrade(inner), inner.closing.subscribe());
    spawn.spawn("scrub", Box::pin(task));
    let task = compaction::task(Arc::downgrade(inner), inner.closing.subscribe());
    spawn.spawn("compaction", Box::pin(task));
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

/// Waits for `event` and returns true; returns false if the store closes first.
pub(super) async fn or_closing(
    event: impl Future<Output = ()>,
    closing: &mut watch::Receiver<bool>,
) -> bool {
    // An error means that the store was dropped.
    let closed = pin!(closing.wait_for(|closing| *closing));
    matches!(select(pin!(event), closed).await, Either::Left(_))
}

/// Lets other tasks run.
pub(super) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Counts a row of a scan, the `seen`th, as progress of its job. Lets an operator stop the job, and other tasks run.
pub(super) async fn row_seen(job: &Job, seen: u64) -> Result<()> {
    job.checkpoint().await?;
    job.progress(1);
    if seen.is_multiple_of(ROWS_AT_ONCE) {
        yield_now().await;
    }
    Ok(())
}

async fn checkpoints(store: Weak<Inner>, due: Arc<Notify>, mut closing: watch::Receiver<bool>) {
    while or_closing(due.notified(), &mut closing).await {
        let Some(inner) = store.upgrade() else { return };
        if let Err(error) = inner.checkpoints.run(&inner).await {
            if inner.poison.cause().is_some() {
                return;
            }
            tracing::error!(%error, "no checkpoint could be written; no data is lost, but memory grows and the next start takes longer");
            let pause = inner.env.clock.sleep(CHECKPOINT_RETRY);
            drop(inner);
            due.notify_one();
            if !or_closing(pause, &mut closing).await {
                return;
            }
        }
    }
}

async fn merges(store: Weak<Inner>, due: Arc<Notify>, mut closing: watch::Receiver<bool>) {
    while or_closing(due.notified(), &mut closing).await {
        let Some(inner) = store.upgrade() else { return };
        if let Err(error) = inner.checkpoints.merge(&inner, &mut closing).await {
            if inner.poison.cause().is_some() {
                return;
            }
            tracing::warn!(%error, "runs could not be merged; nothing is lost, but lookups look into more files");
            let pause = inner.env.clock.sleep(CHECKPOINT_RETRY);
            drop(inner);
            due.notify_one();
            if !or_closing(pause, &mut closing).await {
                return;
            }
        }
    }
}

/// Reserves segment ids until the store closes or is poisoned. Those that still wait for one fail then.
async fn segment_ids(store: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    let Some(ids) = store
        .upgrade()
        .map(|inner| Arc::clone(inner.segments.ids()))
    else {
        return;
    };
    while or_closing(ids.low(), &mut closing).await {
        let Some(inner) = store.upgrade() else { break };
        if let Err(error) = reserve(&inner).await {
            if inner.poison.cause().is_some() {
                break;
            }
            tracing::warn!(%error, "segment ids could not be reserved; uploads wait");
            let pause = inner.env.clock.sleep(Duration::from_secs(1));
            drop(inner);
            if !or_closing(pause, &mut closing).await {
                break;
            }
        }
    }
    ids.close();
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

/// Suspends uploads that are quiet, as long as any of them holds memory or a descriptor.
async fn quiet_uploads(store: Weak<Inner>, held: Arc<Notify>, mut closing: watch::Receiver<bool>) {
    while or_closing(held.notified(), &mut closing).await {
        let mut holding = true;
        while holding {
            let Some(inner) = store.upgrade() else { return };
            let pause = inner.env.clock.sleep(SCAN_INTERVAL);
            drop(inner);
            if !or_closing(pause, &mut closing).await {
                return;
            }
            let Some(inner) = store.upgrade() else { return };
            let suspend = async { holding = inner.uploads.suspend_quiet().await };
            // Given up when the store closes, because the close saves all uploads.
            if !or_closing(suspend, &mut closing).await {
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
