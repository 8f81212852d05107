//! Removal of a large deleted manifest's tags and edges, step by step, and of what its referrers followed.
//!
//! Owns: which tags count, and [`ManifestPurge`], the position in what is left. Refuses: queueing the steps
//! (`store::purge`).
//!
//! A manifest may have more tags than a transaction holds, and tens of thousands of edges or referrers. Where there are
//! many, its deletion removes its row and marks its digest with the LSN of the deletion. A tag that points at a marked
//! digest counts only if it was set later. So all tags are gone at once, and the same manifest, pushed again, has none.
//! Tags and edges are then removed in steps of bounded size, between other commits, and the mark last.
//!
//! Invariants: a tag's row and its reverse are there together, whether or not the tag counts. The tags of a mark only
//! become fewer. Edges of a manifest that was put again are its own.

use bytes::Bytes;

use super::repository::Repository;
use super::view::{View, row};
use crate::digest::Digest;
use crate::error::Result;
use crate::extent::Lsn;
use crate::format::keys;
use crate::format::keys::TagValue;
use crate::format::transaction::{Operation, RepositoryId};
use crate::state::State;

/// Most tags that a deletion removes itself; more are left to later steps.
pub(crate) const TAGS_AT_ONCE: usize = 256;
/// Most edges that a deletion removes itself; more are left to later steps.
pub(crate) const EDGES_AT_ONCE: usize = 1024;

/// Counts the children and referrers of a manifest; `None` if there are more than `max` of either.
pub(crate) fn count_edges(
    of: Repository<'_>,
    digest: &Digest,
    max: usize,
) -> Result<Option<usize>> {
    let children = of.children(digest, max + 1)?.len();
    if children > max {
        return Ok(None);
    }
    let referrers = of.referrers(digest, None, max + 1)?.len();
    Ok((referrers <= max).then_some(children + referrers))
}

/// Counts the marked manifests.
pub(crate) async fn count(state: &State) -> Result<u64> {
    let mut marks = state.scan_prefix(&keys::all_retired(), None);
    let mut count = 0;
    while marks.next_resident().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// A position in the tags and edges of a marked manifest.
#[derive(Debug, Clone)]
pub(crate) struct ManifestPurge {
    repository: RepositoryId,
    digest: Digest,
    /// The deletion whose remains these are.
    lsn: Lsn,
    part: Part,
    /// The last tag or referrer that was looked at.
    after: Option<Bytes>,
}

/// What is looked at, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Tags,
    /// The manifests whose subject it was. Their rows stay.
    Referrers,
    Edges,
}

impl ManifestPurge {
    /// Returns whether the manifest is still marked by the same deletion, in a repository that exists.
    pub(crate) fn holds(&self, view: &View) -> Result<bool> {
        let marked = view.retired_at(self.repository, &self.digest)?;
        Ok(marked == Some(self.lsn) && view.repository_name(self.repository)?.is_some())
    }

    /// Computes the next step on top of `view`, and whether it is the last, which removes the mark. A step without
    /// operations found nothing to remove, and is not the last.
    pub(crate) fn step(&mut self, view: &View) -> Result<(Vec<Operation>, bool)> {
        let (repository, digest) = (self.repository, self.digest);
        let of = Repository::new(view, repository);
        if self.part == Part::Tags {
            let operations = self.tags(view)?;
            if !operations.is_empty() || self.part == Part::Tags {
                return Ok((operations, false));
            }
        }
        if of.has_manifest(&digest)? {
            return Ok((vec![Operation::ForgetManifest { repository, digest }], true));
        }
        if self.part == Part::Referrers {
            let operations = self.referrers(view)?;
            if !operations.is_empty() || self.part == Part::Referrers {
                return Ok((operations, false));
            }
        }
        let children = of.children(&digest, EDGES_AT_ONCE)?;
        let last = children.len() < EDGES_AT_ONCE;
        let mut operations = vec![Operation::DropEdges {
            repository,
            digest,
            children,
        }];
        if last {
            operations.push(Operation::ForgetManifest { repository, digest });
        }
        Ok((operations, last))
    }

    fn tags(&mut self, view: &View) -> Result<Vec<Operation>> {
        let (repository, digest) = (self.repository, self.digest);
        let of = Repository::new(view, repository);
        let prefix = keys::tagged_prefix(repository, &digest);
        let (mut operations, mut looked_at) = (Vec::new(), 0);
        for found in view.state().scan_prefix(&prefix, self.after.as_deref()) {
            if looked_at == TAGS_AT_ONCE {
                return Ok(operations);
            }
            looked_at += 1;
            let (key, _) = found?;
            let tag = row(&key, keys::text_after(&key, &prefix))?;
            let value = of.tag_row(&tag)?;
            if value.is_some_and(|value| value.digest == digest && value.lsn < self.lsn) {
                operations.push(Operation::DeleteTag {
                    repository,
                    tag,
                    old: digest,
                });
            }
            self.after = Some(key);
        }
        (self.part, self.after) = (Part::Referrers, None);
        Ok(operations)
    }

    fn referrers(&mut self, view: &View) -> Result<Vec<Operation>> {
        let (repository, subject) = (self.repository, self.digest);
        let prefix = keys::referrers(repository, &subject);
        let rows = view.state().scan_prefix(&prefix, self.after.as_deref());
        let (mut referrers, mut looked_at) = (Vec::new(), 0);
        for found in rows.take(EDGES_AT_ONCE) {
            let (key, value) = found?;
            looked_at += 1;
            // Those pushed after the deletion follow nothing.
            if value.is_empty() || row(&key, keys::decode_lsn(&value))? < self.lsn {
                referrers.push(row(&key, keys::digest_after(&key, &prefix))?);
            }
            self.after = Some(key);
        }
        if looked_at < EDGES_AT_ONCE {
            (self.part, self.after) = (Part::Edges, None);
        }
        if referrers.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![Operation::FollowSubject {
            repository,
            subject,
            referrers,
        }])
    }
}

impl View {
    /// Returns the LSN of the deletion that marked a manifest.
    pub(crate) fn retired_at(&self, id: RepositoryId, digest: &Digest) -> Result<Option<Lsn>> {
        if self.state().retired == 0 {
            return Ok(None);
        }
        let key = keys::retired(id, digest);
        let value = self.state().get(&key)?;
        value
            .map(|value| row(&key, keys::decode_lsn(&value)))
            .transpose()
    }

    /// Returns whether a tag counts: its manifest was not deleted after it was set.
    pub(super) fn is_live_tag(&self, id: RepositoryId, tag: &TagValue) -> Result<bool> {
        let marked = self.retired_at(id, &tag.digest)?;
        Ok(marked.is_none_or(|deleted| tag.lsn >= deleted))
    }

    /// Returns how many deleted manifests still have rows.
    pub(crate) fn retired_manifests(&self) -> u64 {
        self.state().retired
    }

    /// Returns the marked manifest to be cleared next.
    pub(crate) fn next_retired(&self) -> Result<Option<ManifestPurge>> {
        if self.state().retired == 0 {
            return Ok(None);
        }
        let first = self.state().scan_prefix(&keys::all_retired(), None).next();
        let Some((key, value)) = first.transpose()? else {
            return Ok(None);
        };
        let repository = row(&key, keys::owner(&key))?;
        let prefix = keys::retired_of(repository);
        Ok(Some(ManifestPurge {
            repository,
            digest: row(&key, keys::digest_after(&key, &prefix))?,
            lsn: row(&key, keys::decode_lsn(&value))?,
            part: Part::Tags,
            after: None,
        }))
    }
}
