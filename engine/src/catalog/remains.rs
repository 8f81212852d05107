//! What a deleted repository leaves behind, and its clearing away step by step.
//!
//! Owns: `Purge`, the way through what remains, and which deleted repositories still have rows.
//! Refuses: taking the steps (`store::purge`).
//!
//! Deleting a repository takes its name away, in one small transaction: from then on nobody reaches its rows, and the name, used anew, gets
//! another id. The rows, of which there may be millions, go in steps of bounded size, between other commits. Each is a transaction
//! like any other, so a stop between two of them leaves fewer rows to clear away and nothing to repair.
//!
//! Invariants: a row's repository exists, or is among the deleted ones of which rows remain, to which no row is ever added; a manifest
//! that remains keeps alive what it lists until it goes, like any other.

use bytes::Bytes;

use super::repository::Repository;
use super::view::{View, row};
use crate::error::Result;
use crate::format::keys::{self, TagValue};
use crate::format::transaction::{Operation, RepositoryId};

/// Operations of one step.
const STEP_OPERATIONS: usize = 256;
/// Edges that the manifests of one step take along; those of its last manifest may be more.
const STEP_EDGES: usize = 1024;

/// A way through the rows of a deleted repository. It remembers where it is: what was cleared away already would have to be passed
/// over at every step, as long as no checkpoint dropped it.
#[derive(Debug, Clone)]
pub(crate) struct Purge {
    repository: RepositoryId,
    part: Part,
    after: Option<Bytes>,
}

/// Tags go before the manifests that they point at, manifests before the blobs that they list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Tags,
    Manifests,
    /// Edges of manifests that were deleted before.
    Retired,
    Links,
    Nothing,
}

impl Purge {
    /// From the beginning of what remains of `repository`.
    pub(crate) fn of(repository: RepositoryId) -> Self {
        Self {
            repository,
            part: Part::Tags,
            after: None,
        }
    }

    /// Whose rows it clears away.
    pub(crate) fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// Whether the last step was the last.
    pub(crate) fn is_over(&self) -> bool {
        self.part == Part::Nothing
    }

    /// The next step. `self` is behind it then, whether or not it is taken: keep a clone until it is durable.
    pub(crate) fn step(&mut self, view: &View) -> Result<Vec<Operation>> {
        loop {
            let (prefix, next) = match self.part {
                Part::Tags => (keys::tags(self.repository), Part::Manifests),
                Part::Manifests => (keys::manifests(self.repository), Part::Retired),
                Part::Retired => (keys::retired_of(self.repository), Part::Links),
                Part::Links | Part::Nothing => (keys::links(self.repository), Part::Nothing),
            };
            let operations = self.rows(view, &prefix)?;
            if !operations.is_empty() {
                return Ok(operations);
            }
            (self.part, self.after) = (next, None);
            if self.is_over() {
                let id = self.repository;
                return Ok(vec![Operation::ForgetRepository { id }]);
            }
        }
    }

    fn rows(&mut self, view: &View, prefix: &[u8]) -> Result<Vec<Operation>> {
        let repository = self.repository;
        let (mut operations, mut edges) = (Vec::new(), 0);
        for found in view.state().scan_prefix(prefix, self.after.as_deref()) {
            let (key, value) = found?;
            if self.part == Part::Retired {
                let digest = row(&key, keys::digest_after(&key, prefix))?;
                let children = Repository::new(view, repository).children(&digest, STEP_EDGES)?;
                let last = children.len() < STEP_EDGES;
                edges += children.len();
                operations.push(Operation::DropEdges {
                    repository,
                    digest,
                    children,
                });
                if !last {
                    break;
                }
                operations.push(Operation::ForgetManifest { repository, digest });
                self.after = Some(key);
                if operations.len() >= STEP_OPERATIONS || edges >= STEP_EDGES {
                    break;
                }
                continue;
            }
            operations.push(match self.part {
                Part::Tags => Operation::DeleteTag {
                    repository,
                    tag: row(&key, keys::text_after(&key, prefix))?,
                    old: row(&key, TagValue::decode(&value))?.digest,
                },
                Part::Manifests => {
                    let digest = row(&key, keys::digest_after(&key, prefix))?;
                    let children = keys::children(repository, &digest);
                    let left = STEP_EDGES.saturating_sub(edges);
                    for edge in view.state().scan_prefix(&children, None).take(left) {
                        edge?;
                        edges += 1;
                    }
                    Operation::DeleteManifest { repository, digest }
                }
                Part::Retired | Part::Links | Part::Nothing => Operation::Unlink {
                    repository,
                    digest: row(&key, keys::digest_after(&key, prefix))?,
                },
            });
            self.after = Some(key);
            if operations.len() >= STEP_OPERATIONS || edges >= STEP_EDGES {
                break;
            }
        }
        Ok(operations)
    }
}

impl View {
    /// The deleted repository whose turn it is to be cleared away.
    pub(crate) fn next_deleted(&self) -> Result<Option<RepositoryId>> {
        let prefix = keys::all_deleted();
        let first = self.state().scan_prefix(&prefix, None).next();
        let Some((key, _)) = first.transpose()? else {
            return Ok(None);
        };
        let id = row(&key, keys::number_after(&key, &prefix))?;
        Ok(Some(RepositoryId(id)))
    }

    /// How many deleted repositories still have rows.
    pub(crate) fn deleted_repositories(&self) -> Result<u64> {
        let rows = self.state().scan_prefix(&keys::all_deleted(), None);
        rows.map(|found| found.map(|_| 1)).sum()
    }

    /// Repositories that rows belong to although they neither exist nor were deleted, with the table of such rows. One look a
    /// repository and table, not a row.
    pub(crate) fn ownerless(&self) -> Result<Vec<(RepositoryId, u8)>> {
        let mut found = Vec::new();
        for table in keys::OWNED_PREFIXES {
            let mut next = RepositoryId(0);
            loop {
                // No row of these tables ends with the repository's id, so what stands behind the bare prefix is its first.
                let from = keys::owned(table, next);
                let first = self.state().scan_prefix(&[table], Some(&from)).next();
                let Some((key, _)) = first.transpose()? else {
                    break;
                };
                let id = row(&key, keys::owner(&key))?;
                let known = self.repository_name(id)?.is_some()
                    || self.state().get(&keys::deleted(id))?.is_some();
                if !known {
                    found.push((id, table));
                }
                let Some(behind) = id.0.checked_add(1) else {
                    break;
                };
                next = RepositoryId(behind);
            }
        }
        Ok(found)
    }
}
