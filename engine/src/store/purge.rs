//! Removal of the rows of deleted repositories and manifests, beside all other work.
//!
//! Owns: the loop, and when it pauses. Refuses: what a step is (`catalog::repository_purge`, `catalog::retired`).
//!
//! Invariant: one step at a time, each durable before the next is computed. So no other commit waits longer than one
//! step, and the memory needed is that of one step and of what no checkpoint has written yet.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{select, try_join_all};
use tokio::sync::watch;

use super::Inner;
use super::background::or_closing;
use crate::catalog::View;
use crate::catalog::repository_purge::RepositoryPurge;
use crate::commit::ManifestPurgeStep;
use crate::error::{Error, Result};
use crate::format::transaction::Operation;
use crate::sync::{Mutex, Notify};
use crate::table::resident_off_worker;

/// Pause after a failed step (mostly a full disk) before the next attempt.
const RETRY: Duration = Duration::from_secs(10);
/// Lookups at a time.
const READ_AHEAD: usize = 16;

/// Continues what an earlier stop left, then handles each deletion that `due` announces.
pub(super) async fn task(store: Weak<Inner>, due: Arc<Notify>, mut closing: watch::Receiver<bool>) {
    let mut purge = None;
    loop {
        let Some(inner) = store.upgrade() else { return };
        let ended = step(&inner, &mut purge).await;
        inner.purge.note(ended.as_ref().err());
        match ended {
            Ok(true) => {}
            Ok(false) => {
                drop(inner);
                if !or_closing(due.notified(), &mut closing).await {
                    return;
                }
            }
            Err(Error::Closed | Error::Poisoned { .. }) => return,
            Err(error) => {
                tracing::warn!(%error, "rows of a deleted repository or manifest could not be removed; retrying");
                let pause = inner.env.clock.sleep(RETRY);
                drop(inner);
                if !or_closing(pause, &mut closing).await {
                    return;
                }
            }
        }
    }
}

/// How the last step ended.
#[derive(Debug, Default)]
pub(super) struct Purge {
    failure: Mutex<Option<Error>>,
    failed: Notify,
}

impl Purge {
    fn note(&self, failure: Option<&Error>) {
        *self.failure.lock() = failure.cloned();
        if failure.is_some() {
            self.failed.notify_waiters();
        }
    }
}

/// Waits until no rows of deleted repositories and manifests are left.
///
/// # Errors
/// That of a step that failed, although it is tried again. [`Error::Closed`] if the store closes first.
pub(super) async fn finished(inner: &Inner) -> Result<()> {
    let mut closing = inner.closing.subscribe();
    loop {
        // Enabled before the state is read, so that no step is missed.
        let mut published = pin!(inner.sequencer.published.notified());
        published.as_mut().enable();
        let mut failed = pin!(inner.purge.failed.notified());
        failed.as_mut().enable();
        if let Some(error) = &*inner.purge.failure.lock() {
            return Err(error.clone());
        }
        let view = View::new(inner.sequencer.durable());
        let deleted = view.read(View::next_deleted).await?.is_some();
        if !deleted && view.read(View::next_retired).await?.is_none() {
            return Ok(());
        }
        let ended = select(published, failed).map(|_which| ());
        if !or_closing(ended, &mut closing).await {
            return Err(Error::Closed);
        }
    }
}

/// Runs one step, durable on return. Returns false if nothing is left.
async fn step(inner: &Inner, purge: &mut Option<RepositoryPurge>) -> Result<bool> {
    inner.checkpoints.wait_for_room(inner).await;
    // The state includes queued transactions: a step queues after the deletion, and fails with it. If the deletion
    // failed earlier, the step is not queued, and the next one is looked up again.
    let (view, _) = inner.sequencer.head();
    let next = match purge.as_ref().filter(|purge| !purge.is_over()) {
        Some(purge) => purge.clone(),
        None => match view.read(View::next_deleted).await? {
            Some(repository) => RepositoryPurge::of(repository),
            None => return purge_manifest(inner, &view).await,
        },
    };
    let at = view.clone();
    // A manifest may have tens of thousands of edges.
    let compute_step = move || {
        let mut next = next.clone();
        Ok((next.step(&at)?, next))
    };
    let (operations, next) = resident_off_worker(&inner.env, compute_step).await?;
    read_ahead(&view, &operations).await?;
    let (sequencer, repository) = (Arc::clone(&inner.sequencer), next.repository());
    let queue_step = move || sequencer.purge_repository(repository, operations.clone());
    let Some(waiting) = resident_off_worker(&inner.env, queue_step).await? else {
        *purge = None;
        return Ok(true);
    };
    waiting.await.map_err(|_gone| Error::Closed)??;
    *purge = Some(next);
    inner.checkpoints.start_if_due(inner);
    Ok(true)
}

/// Reads the rows by which a step is counted, several at a time. Under the sequencer's lock each page that is not in
/// memory would repeat the whole step.
async fn read_ahead(view: &View, operations: &[Operation]) -> Result<()> {
    for some in operations.chunks(READ_AHEAD) {
        let reads = some.iter().map(|operation| read_for(view, operation));
        try_join_all(reads).await?;
    }
    Ok(())
}

async fn read_for(view: &View, operation: &Operation) -> Result<()> {
    if let Operation::Unlink { repository, digest }
    | Operation::DeleteManifest { repository, digest } = operation
    {
        view.read(|view| view.read_ahead_of_loss(*repository, digest))
            .await?;
    }
    if let Operation::DropEdges {
        repository,
        children: touched,
        ..
    }
    | Operation::FollowSubject {
        repository,
        referrers: touched,
        ..
    } = operation
    {
        for some in touched.chunks(READ_AHEAD) {
            let read = async |digest| {
                view.read(|view| view.read_ahead_of_suspicion(*repository, digest))
                    .await
            };
            try_join_all(some.iter().map(read)).await?;
        }
    }
    Ok(())
}

/// Runs all steps for one deleted manifest. Returns false if there is none.
async fn purge_manifest(inner: &Inner, view: &View) -> Result<bool> {
    let Some(mut purge) = view.read(View::next_retired).await? else {
        return Ok(false);
    };
    loop {
        inner.checkpoints.wait_for_room(inner).await;
        // The step that is queued is computed anew, because tags may be set meanwhile.
        let (at, likely) = (inner.sequencer.head().0, purge.clone());
        let state = at.clone();
        let compute_step = move || Ok(likely.clone().step(&state)?.0);
        let operations = resident_off_worker(&inner.env, compute_step).await?;
        read_ahead(&at, &operations).await?;
        let sequencer = Arc::clone(&inner.sequencer);
        let step = move || {
            let mut next = purge.clone();
            Ok((sequencer.purge_manifest(&mut next)?, next))
        };
        let (step, next) = resident_off_worker(&inner.env, step).await?;
        let Some(ManifestPurgeStep { waiting, last }) = step else {
            return Ok(true);
        };
        if let Some(waiting) = waiting {
            waiting.await.map_err(|_gone| Error::Closed)??;
        }
        inner.checkpoints.start_if_due(inner);
        if last {
            return Ok(true);
        }
        purge = next;
    }
}
