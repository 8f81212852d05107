//! Closing a store so that the next open is quick and finds nothing to clean up.
//!
//! Owns: the order: uploads, queue, checkpoint, leftovers, close frame. Refuses: the steps themselves.

use std::path::Path;

use futures_util::future::BoxFuture;

use super::{Inner, Store, damage};
use crate::catalog::View;
use crate::error::{Error, Result};
use crate::io::Env;
use crate::recovery::apply;
use crate::sync::oneshot;
use crate::upload::resumable_segments;

/// The close's ends of the channels to the journal task.
#[derive(Debug)]
pub(super) struct JournalTask {
    /// Received when the queue is empty and stays so.
    pub(super) drained: oneshot::Receiver<()>,
    /// Sent if the stop is clean.
    pub(super) seal: oneshot::Sender<()>,
    /// Received when the task has ended.
    pub(super) ended: oneshot::Receiver<Result<()>>,
}

impl Store {
    /// Stops taking writes, makes uploads resumable, writes a checkpoint, removes files that nothing names and closes
    /// the journal. If a run was found damaged, the journal is left as a kill leaves it, so that the next open rebuilds
    /// the run.
    ///
    /// Reads continue until the last clone drops, which releases the lock. The store's background tasks and its
    /// removals of segments have ended when this returns.
    ///
    /// # Errors
    /// The first step that failed. The stop is then not clean, and the next open recovers.
    pub fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.drain_and_close())
    }

    async fn drain_and_close(&self) -> Result<()> {
        let inner = &self.inner;
        let task = inner.journal.lock().take();
        let Some(task) = task else { return Ok(()) };
        // Uploads first: one that is still in memory takes a segment id, and the task that reserves ids ends with
        // `closing`.
        let uploads = inner.uploads.checkpoint_all().await;
        if let Err(error) = damage::record(inner).await {
            tracing::warn!(%error, "damage that was found is not recorded; reads find it again");
        }
        inner.closing.send_replace(true);
        inner.jobs.close();
        inner.sequencer.close();
        task.drained.await.map_err(|_gone| Error::Closed)?;
        let cleaned = match (uploads, inner.poison.check()) {
            (Ok(()), Ok(())) => clean_up(inner).await,
            (uploads, poisoned) => poisoned.and(uploads),
        };
        let damage = inner.checkpoints.context().damage.found();
        if let Some(found) = &damage {
            // Nothing is lost, but only an open that follows an unclean stop checks all runs.
            tracing::warn!(%found, "the stop is not clean, because a part of index and catalog is damaged");
        }
        if cleaned.is_ok() && damage.is_none() {
            // The task is still there: it waits for this.
            task.seal.send(()).unwrap_or_default();
        } else {
            drop(task.seal);
        }
        let ended = task.ended.await;
        // A task may be in the middle of a step, and hold the store.
        inner.closing.closed().await;
        // Ended before another process may open the store.
        inner.segments.files().unlinked().await;
        cleaned.and(ended.map_err(|_gone| Error::Closed)?)
    }
}

/// Writes a last checkpoint and removes segment files that nothing names.
async fn clean_up(inner: &Inner) -> Result<()> {
    inner.checkpoints.run(inner).await?;
    // The first may have completed one that failed before, of an older state.
    inner.checkpoints.run(inner).await?;
    let view = View::new(inner.sequencer.durable());
    remove_unnamed(&inner.env, &inner.path, &view).await
}

async fn remove_unnamed(env: &Env, store: &Path, view: &View) -> Result<()> {
    let mut unnamed = apply::list_segments(&*env.io, store).await?;
    for id in resumable_segments(env, &store.join("uploads")).await? {
        unnamed.remove(&id);
    }
    let mut segments = view.segments();
    while let Some((id, used)) = segments.next_resident().await? {
        if used.live_blobs > 0 {
            unnamed.remove(&id);
        }
    }
    if !unnamed.is_empty() {
        // There are rarely any, so the files are listed with their kind only now.
        let files = apply::segment_sizes(&*env.io, store).await?;
        let others: Vec<_> = unnamed
            .extract_if(.., |id| !files.contains_key(id))
            .collect();
        for id in others {
            let path = apply::segment_path(store, id);
            tracing::warn!(path = %path.display(), "not a regular file, although named like a segment; move it away");
        }
    }
    let unnamed: Vec<_> = unnamed.into_iter().collect();
    apply::remove_segments(&*env.io, store, &unnamed).await
}
