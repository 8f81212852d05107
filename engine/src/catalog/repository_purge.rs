//! Removal of a deleted repository's rows, step by step.
//!
//! Owns: [`RepositoryPurge`], the position in these rows, and which deleted repositories still have rows. Refuses:
//! queueing the steps (`store::purge`).
//!
//! Deleting a repository removes its name in one small transaction. From then on its rows cannot be reached, and the
//! name, if it is used again, gets another id. There may be millions of rows, so they are removed in steps of bounded
//! size, between other commits. Each step is an ordinary transaction. A stop between two steps leaves fewer rows, and
//! nothing to repair.
//!
//! Invariants: a row's repository exists, or is deleted with rows left, and then no row is ever added to it. A manifest
//! that is left keeps its children alive until it is removed.

use bytes::Bytes;

use super::repository::Repository;
use super::view::{View, row};
use crate::error::Result;
use crate::format::keys::{self, TagValue};
use crate::format::transaction::{Operation, RepositoryId};

/// Operations of one step.
const STEP_OPERATIONS: usize = 256;
/// Edges removed with the manifests of one step; those of its last manifest may be more.
const STEP_EDGES: usize = 1024;

/// A position in the rows of a deleted repository. Without it, every step would scan past the rows removed before,
/// until a checkpoint drops them.
#[derive(Debug, Clone)]
pub(crate) struct RepositoryPurge {
    repository: RepositoryId,
    part: Part,
    after: Option<Bytes>,
}

/// The tables in the order of removal: tags before their manifests, manifests before the blobs that they list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Tags,
    Manifests,
    /// Edges of manifests that were deleted before.
    Retired,
    Links,
    Nothing,
}

impl RepositoryPurge {
    /// Starts at the first row of `repository`.
    pub(crate) fn of(repository: RepositoryId) -> Self {
        Self {
            repository,
            part: Part::Tags,
            after: None,
        }
    }

    /// Returns the repository whose rows are removed.
    pub(crate) fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// Returns whether no step is left.
    pub(crate) fn is_over(&self) -> bool {
        self.part == Part::Nothing
    }

    /// Computes the next step and moves past it. Keep a clone until the step is durable.
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
    /// Returns the deleted repository to be purged next.
    pub(crate) fn next_deleted(&self) -> Result<Option<RepositoryId>> {
        let prefix = keys::all_deleted();
        let first = self.state().scan_prefix(&prefix, None).next();
        let Some((key, _)) = first.transpose()? else {
            return Ok(None);
        };
        let id = row(&key, keys::number_after(&key, &prefix))?;
        Ok(Some(RepositoryId(id)))
    }

    /// Counts the deleted repositories that still have rows.
    pub(crate) fn deleted_repositories(&self) -> Result<u64> {
        let rows = self.state().scan_prefix(&keys::all_deleted(), None);
        rows.map(|found| found.map(|_| 1)).sum()
    }

    /// Returns the first repository from `from` on that has rows in a table of [`keys::OWNED_PREFIXES`].
    pub(super) fn next_owner(&self, table: u8, from: RepositoryId) -> Result<Option<RepositoryId>> {
        // No row of these tables ends with the repository's id, so the first row after the bare prefix is its first.
        let from = keys::owned(table, from);
        let first = self.state().scan_prefix(&[table], Some(&from)).next();
        let first = first.transpose()?;
        first
            .map(|(key, _)| row(&key, keys::owner(&key)))
            .transpose()
    }

    /// Finds rows of repositories that neither exist nor were deleted: pairs of repository and table. Costs one lookup
    /// for each repository and table.
    pub(crate) fn ownerless(&self) -> Result<Vec<(RepositoryId, u8)>> {
        let mut found = Vec::new();
        for table in keys::OWNED_PREFIXES {
            let mut next = RepositoryId(0);
            loop {
                let Some(id) = self.next_owner(table, next)? else {
                    break;
                };
                let known = self.repository_name(id)?.is_some()
                    || self.state().get(&keys::deleted(id))?.is_some();
                if !known {
                    found.push((id, table));
                }
                let Some(following) = id.0.checked_add(1) else {
                    break;
                };
                next = RepositoryId(following);
            }
        }
        Ok(found)
    }
}
