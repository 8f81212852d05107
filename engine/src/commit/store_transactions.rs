//! The transactions of the store itself, which no client asks for.
//!
//! Owns: reservations of segment ids, damage marks, and the steps of purges. Refuses: preconditions; each method checks
//! under the lock that its operations still apply.
//!
//! Invariants: an operation is checked against the state with everything queued before it.

use std::sync::Arc;

use super::Sequencer;
use super::queue::Inner;
use crate::catalog::View;
use crate::catalog::retired::ManifestPurge;
use crate::error::Result;
use crate::extent::SegmentId;
use crate::finished_blob::Committed;
use crate::format::keys;
use crate::format::transaction::{Operation, RepositoryId};
use crate::segment::DamageMark;
use crate::sync::oneshot;

/// A queued step of a purge.
#[derive(Debug)]
pub(crate) struct ManifestPurgeStep {
    /// Resolves when the step is durable; `None` if there was nothing to remove this time.
    pub waiting: Option<oneshot::Receiver<Result<Committed>>>,
    /// Whether this step was the last.
    pub last: bool,
}

impl Sequencer {
    /// Queues the reservation of segment ids below `limit`.
    pub(crate) fn reserve_segments(
        &self,
        limit: SegmentId,
    ) -> Result<oneshot::Receiver<Result<Committed>>> {
        let mut inner = self.open_for_writes()?;
        self.queue_own(&mut inner, vec![Operation::ReserveSegmentIds { limit }])
    }

    /// Queues marks that blobs were found damaged, or intact again. Returns `None` if all marks are there already, as
    /// strong as these, or the blobs are stored elsewhere by now.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] if the row of one of the blobs does not decode; nothing was queued.
    pub(crate) fn record_damage(
        &self,
        found: &[DamageMark],
    ) -> Result<Option<oneshot::Receiver<Result<Committed>>>> {
        let mut inner = self.open_for_writes()?;
        let view = View::new(Arc::new(inner.head.clone()));
        let mut operations = Vec::new();
        for mark in found {
            let DamageMark {
                digest,
                extent,
                proof,
            } = *mark;
            let stored = view.blob(&digest)?;
            if stored.is_none_or(|stored| stored.extent != extent) {
                continue;
            }
            let recorded = view.damage(&digest)?.map(|place| place.proof);
            match proof {
                Some(proof) if recorded < Some(proof) => operations.push(Operation::MarkDamaged {
                    digest,
                    extent,
                    proof,
                }),
                None if recorded.is_some() => {
                    operations.push(Operation::MarkWhole { digest, extent });
                }
                Some(_) | None => {}
            }
        }
        drop(view);
        if operations.is_empty() {
            return Ok(None);
        }
        self.queue_own(&mut inner, operations).map(Some)
    }

    /// Queues a step that removes rows of a deleted repository. Returns `None` if the repository is not deleted: the
    /// deletion that the step was computed after has failed.
    pub(crate) fn purge_repository(
        &self,
        repository: RepositoryId,
        operations: Vec<Operation>,
    ) -> Result<Option<oneshot::Receiver<Result<Committed>>>> {
        let mut inner = self.open_for_writes()?;
        if inner.head.get(&keys::deleted(repository))?.is_none() {
            return Ok(None);
        }
        self.queue_purge(&mut inner, operations).map(Some)
    }

    /// Queues a step that removes rows of a deleted manifest. Returns `None` if it was deleted again, or its repository
    /// was.
    ///
    /// The step is computed under the lock, because tags may be set to the same digest meanwhile.
    pub(crate) fn purge_manifest(
        &self,
        purge: &mut ManifestPurge,
    ) -> Result<Option<ManifestPurgeStep>> {
        let mut inner = self.open_for_writes()?;
        let view = View::new(Arc::new(inner.head.clone()));
        if !purge.holds(&view)? {
            return Ok(None);
        }
        let (operations, last) = purge.step(&view)?;
        drop(view);
        let waiting = if operations.is_empty() {
            None
        } else {
            Some(self.queue_purge(&mut inner, operations)?)
        };
        Ok(Some(ManifestPurgeStep { waiting, last }))
    }

    /// Queues a step of a purge. It does not count as a removal for prevalidation: no precondition can name its rows.
    fn queue_purge(
        &self,
        inner: &mut Inner,
        operations: Vec<Operation>,
    ) -> Result<oneshot::Receiver<Result<Committed>>> {
        let removals = inner.removals;
        let queued = self.queue_own(inner, operations);
        inner.removals = removals;
        queued
    }
}
