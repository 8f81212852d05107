//! Removal of dead blobs from the index, as transactions of the store itself.
//!
//! Owns: [`Removals`], what one transaction removed and cleared. Refuses: the rules (`collection::rules`), and choosing
//! candidates (`store::collection`).
//!
//! Invariant: each candidate is judged again on the newest state, under the lock under which its removal is queued.

use std::sync::Arc;

use super::Sequencer;
use super::queue::{Held, Inner};
use crate::catalog::View;
use crate::collection::{Due, Verdict, judge};
use crate::digest::Digest;
use crate::error::Result;
use crate::extent::Extent;
use crate::finished_blob::Committed;
use crate::format::transaction::Operation;
use crate::lease::Condemned;
use crate::sync::oneshot;

/// Links that one transaction removes. A blob with more of them loses these first, and is judged again.
pub(crate) const UNLINKS_MAX: usize = 32;

/// Suspects that one transaction settles.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    /// The suspects.
    digests: Vec<Digest>,
    held: Held,
}

impl Candidates {
    /// Lists suspects, of which those that are `condemned` may be removed. The others are only cleared.
    pub(crate) fn new(digests: Vec<Digest>, condemned: Vec<Condemned>) -> Self {
        let held = Held {
            condemned,
            ..Held::default()
        };
        Self { digests, held }
    }
}

/// What a queued transaction removes.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    /// The blobs, and where their bytes are.
    pub removed: Vec<(Digest, Extent)>,
    /// Number of suspects that are cleared.
    pub cleared: u64,
    /// Wall-clock time at which the first of the removed blobs lost its last reference, in Unix ms.
    pub lost_unix_ms: Option<u64>,
    /// Candidates that are not settled: one that has more links than one transaction removes, and those after it.
    pub left: Vec<Digest>,
    /// Resolves when the transaction is durable; `None` if there was nothing to do.
    pub waiting: Option<oneshot::Receiver<Result<Committed>>>,
}

impl Sequencer {
    /// Queues the removal of those `candidates` that are condemned, and dead in the newest state. Clears those that are
    /// referenced or not stored. The queued transaction keeps what is condemned.
    ///
    /// # Errors
    /// [`crate::Error::NotResident`] if a row is not in memory; nothing was queued.
    pub(crate) fn remove_dead(&self, candidates: &mut Candidates, due: Due) -> Result<Removals> {
        self.with_hold_measured(|inner| self.queue_dead(inner, candidates, due))
    }

    fn queue_dead(
        &self,
        inner: &mut Inner,
        candidates: &mut Candidates,
        due: Due,
    ) -> Result<Removals> {
        let view = View::new(Arc::new(inner.head.clone()));
        let mut removals = Removals::default();
        let mut operations = Vec::new();
        let mut unlinks = 0;
        for (number, &digest) in candidates.digests.iter().enumerate() {
            let mut condemned = candidates.held.condemned.iter();
            let is_condemned = condemned.any(|one| *one.digest() == digest);
            match judge(&view, &digest, due)? {
                Verdict::NotSuspect | Verdict::InGrace => {}
                Verdict::Remove(_) if !is_condemned => {}
                Verdict::Clear => {
                    operations.push(Operation::ClearSuspect { digest });
                    removals.cleared += 1;
                }
                Verdict::Remove(extent) => {
                    let room = UNLINKS_MAX - unlinks;
                    let holders = view.holder_ids(&digest, room + 1)?;
                    let whole = holders.len() <= room;
                    for repository in holders.into_iter().take(room) {
                        operations.push(Operation::Unlink { repository, digest });
                        unlinks += 1;
                    }
                    if !whole {
                        removals.left = candidates.digests.iter().skip(number).copied().collect();
                        break;
                    }
                    let lost = view.suspect(&digest)?.map(|suspect| suspect.unix_ms);
                    removals.lost_unix_ms = lost.into_iter().chain(removals.lost_unix_ms).min();
                    operations.push(Operation::RemoveBlob { digest, extent });
                    removals.removed.push((digest, extent));
                }
            }
        }
        drop(view);
        if !operations.is_empty() {
            let held = &mut candidates.held;
            removals.waiting = Some(self.queue_holding(inner, operations, held)?);
        }
        Ok(removals)
    }
}
