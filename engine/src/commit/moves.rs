//! Moves of live blobs to another segment, as transactions of the store itself.
//!
//! Owns: [`Move`], and the check that it still applies. Refuses: choosing and copying (`store::compaction`).
//!
//! Invariants: a blob is moved only from the place that was copied, and only while that place is intact. So a copy is
//! never older than what it replaces, and no damage is hidden. The segments of the copies stay in use until the
//! transaction is durable or has failed.

use std::sync::Arc;

use super::Sequencer;
use super::queue::{Held, Inner};
use crate::catalog::View;
use crate::digest::Digest;
use crate::error::Result;
use crate::extent::Extent;
use crate::finished_blob::Committed;
use crate::format::transaction::Operation;
use crate::segment::{Appended, Damaged};
use crate::sync::oneshot;

/// A live blob and its durable copy.
#[derive(Debug)]
pub(crate) struct Move {
    /// The blob.
    pub digest: Digest,
    /// The place that was copied.
    pub from: Extent,
    /// The copy.
    pub to: Appended,
}

/// A queued transaction of moves.
#[derive(Debug)]
pub(crate) struct Moves {
    /// Blobs that it moves, each with its new place.
    pub placed: Vec<(Digest, Extent)>,
    /// Resolves when the transaction is durable; `None` if no move applies any more.
    pub waiting: Option<oneshot::Receiver<Result<Committed>>>,
}

impl Sequencer {
    /// Queues those `moves` whose blob is still at the place that was copied, in the newest state, and not damaged.
    ///
    /// # Errors
    /// [`crate::Error::NotResident`] if a row is not in memory; nothing was queued.
    pub(crate) fn place_moved(&self, moves: &[Move], damaged: &Damaged) -> Result<Moves> {
        self.with_hold_measured(|inner| self.queue_moves(inner, moves, damaged))
    }

    fn queue_moves(&self, inner: &mut Inner, moves: &[Move], damaged: &Damaged) -> Result<Moves> {
        let view = View::new(Arc::new(inner.head.clone()));
        let mut operations = Vec::with_capacity(moves.len());
        let mut placed = Vec::with_capacity(moves.len());
        let mut held = Held::default();
        for one in moves {
            let Move { digest, from, to } = one;
            let stored = view.blob(digest)?;
            let is_there = stored.is_some_and(|stored| stored.extent == *from);
            if !is_there || damaged.contains(digest, from) {
                continue;
            }
            let (digest, extent) = (*digest, to.extent);
            operations.push(Operation::PlaceBlob { digest, extent });
            placed.push((digest, extent));
            held.in_use.push(Arc::clone(&to.in_use));
        }
        drop(view);
        let waiting = if operations.is_empty() {
            None
        } else {
            Some(self.queue_holding(inner, operations, &mut held)?)
        };
        Ok(Moves { placed, waiting })
    }
}
