//! Removal of manifests that nothing keeps, as transactions of the store itself.
//!
//! Owns: [`ManifestRemovals`], what one transaction removed and cleared. Refuses: the rules (`collection::manifests`),
//! and choosing candidates (`store::collection`).
//!
//! Invariants: each candidate is judged again on the newest state, under the lock under which its removal is queued.
//! Manifests that are dead together are removed in one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Sequencer;
use super::queue::{Held, Inner};
use crate::catalog::{Repository, View, retired};
use crate::collection::{ManifestVerdict, Terms, judge_manifest};
use crate::digest::Digest;
use crate::error::Result;
use crate::finished_blob::Committed;
use crate::format::transaction::{Operation, RepositoryId};
use crate::lease::Condemned;
use crate::sync::oneshot;

/// Most edges that one transaction removes. A manifest with more than are left leaves its own to later steps.
const EDGES_MAX: usize = 128;

/// A suspect among the manifests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SuspectManifest {
    /// The repository.
    pub repository: RepositoryId,
    /// The manifest.
    pub digest: Digest,
    /// What may be removed there.
    pub terms: Terms,
}

/// Suspects among the manifests that one transaction settles.
#[derive(Debug, Default)]
pub(crate) struct ManifestCandidates {
    suspects: Vec<SuspectManifest>,
    held: Held,
}

impl ManifestCandidates {
    /// Lists suspects. Of those that are dead, only what is `condemned` is removed.
    pub(crate) fn new(suspects: Vec<SuspectManifest>, condemned: Vec<Condemned>) -> Self {
        let held = Held {
            condemned,
            ..Held::default()
        };
        Self { suspects, held }
    }
}

/// What a queued transaction removes.
#[derive(Debug, Default)]
pub(crate) struct ManifestRemovals {
    /// The manifests.
    pub removed: BTreeSet<(RepositoryId, Digest)>,
    /// Number of suspects that are cleared.
    pub cleared: u64,
    /// Whether rows of a removed manifest are left to later steps.
    pub retired: bool,
    /// Resolves when the transaction is durable; `None` if there was nothing to do.
    pub waiting: Option<oneshot::Receiver<Result<Committed>>>,
}

impl Sequencer {
    /// Queues the removal of those `candidates` that are condemned, and dead in the newest state. Clears those that are
    /// kept. The queued transaction keeps what is condemned.
    ///
    /// # Errors
    /// [`crate::Error::NotResident`] if a row is not in memory; nothing was queued.
    pub(crate) fn remove_manifests(
        &self,
        candidates: &mut ManifestCandidates,
    ) -> Result<ManifestRemovals> {
        self.with_hold_measured(|inner| self.queue_manifests(inner, candidates))
    }

    fn queue_manifests(
        &self,
        inner: &mut Inner,
        candidates: &mut ManifestCandidates,
    ) -> Result<ManifestRemovals> {
        let view = View::new(Arc::new(inner.head.clone()));
        let condemned = candidates.held.condemned.iter();
        let condemned: BTreeSet<Digest> = condemned.map(|one| *one.digest()).collect();
        let mut removals = ManifestRemovals::default();
        let mut operations = Vec::new();
        let mut edges_left = EDGES_MAX;
        for suspect in &candidates.suspects {
            let SuspectManifest {
                repository,
                digest,
                terms,
            } = *suspect;
            match judge_manifest(&view, repository, &digest, terms)? {
                ManifestVerdict::Stays | ManifestVerdict::InGrace => {}
                ManifestVerdict::Clear => {
                    operations.push(Operation::ClearManifest { repository, digest });
                    removals.cleared += 1;
                }
                ManifestVerdict::Suspect(unknown) => {
                    let suspect = |digest| Operation::SuspectManifest { repository, digest };
                    operations.extend(unknown.into_iter().map(suspect));
                }
                ManifestVerdict::Remove(dead) => {
                    if !dead.iter().all(|digest| condemned.contains(digest)) {
                        continue;
                    }
                    for digest in dead {
                        if removals.removed.insert((repository, digest)) {
                            let of = Repository::new(&view, repository);
                            operations.push(removal(of, digest, &mut edges_left)?);
                        }
                    }
                }
            }
        }
        drop(view);
        let retires = |operation: &Operation| matches!(operation, Operation::RetireManifest { .. });
        removals.retired = operations.iter().any(retires);
        if !operations.is_empty() {
            let held = &mut candidates.held;
            removals.waiting = Some(self.queue_holding(inner, operations, held)?);
        }
        Ok(removals)
    }
}

/// Returns the operation that removes a manifest without tags. It removes the edges, too, if there are at most
/// `edges_left`, and counts them.
fn removal(of: Repository<'_>, digest: Digest, edges_left: &mut usize) -> Result<Operation> {
    let repository = of.id();
    let Some(edges) = retired::count_edges(of, &digest, *edges_left)? else {
        return Ok(Operation::RetireManifest { repository, digest });
    };
    *edges_left = edges_left.saturating_sub(edges);
    Ok(Operation::DeleteManifest { repository, digest })
}
