//! Reads of what references a digest, row by row.
//!
//! Owns: edges and their reverses for the trial of a deletion, and the repositories that have a digest as a manifest.
//! Refuses: deciding which of them count (`collection`): rows of deleted repositories and manifests are among them.

use super::repository::Repository;
use super::view::{Rows, View};
use crate::digest::Digest;
use crate::error::Result;
use crate::format::keys;
use crate::format::transaction::RepositoryId;

impl View {
    /// Lists repositories that have a digest as a manifest, whether or not they are deleted.
    pub(crate) fn manifest_holders(&self, digest: &Digest) -> Rows<RepositoryId> {
        self.rows(&keys::manifest_holders(digest), |key, _, prefix| {
            keys::number_after(key, prefix).map(RepositoryId)
        })
    }

    /// Returns the first edge to `child`, by repository and manifest, after the one given. Without a manifest it is the
    /// first of a later repository.
    pub(crate) fn parent_after(
        &self,
        child: &Digest,
        after: Option<(RepositoryId, Option<Digest>)>,
    ) -> Result<Option<(RepositoryId, Digest)>> {
        let after = match after {
            None => None,
            Some((id, Some(parent))) => Some(keys::parent(child, id, &parent)),
            Some((id, None)) => match id.0.checked_add(1) {
                None => return Ok(None),
                // A prefix, which sorts before the rows of that repository.
                Some(later) => Some(keys::parents_in(child, RepositoryId(later))),
            },
        };
        let prefix = keys::parents(child);
        let decode = |key: &[u8], _: &_| keys::parent_after(key, &prefix);
        let found = self.collect(&prefix, after.as_deref(), 1, decode)?;
        Ok(found.into_iter().next())
    }
}

impl Repository<'_> {
    /// Lists manifests of this repository that have an edge to `child`.
    pub(crate) fn parents(&self, child: &Digest) -> Rows<Digest> {
        let prefix = keys::parents_in(child, self.id());
        self.view()
            .rows(&prefix, |key, _, prefix| keys::digest_after(key, prefix))
    }

    /// Lists at most `limit` digests to which a manifest has an edge, after `after`, in the order of their keys.
    pub(crate) fn children_after(
        &self,
        manifest: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>> {
        let prefix = keys::children(self.id(), manifest);
        let after = after.map(|child| keys::child(self.id(), manifest, child));
        self.view()
            .collect(&prefix, after.as_deref(), limit, |key, _| {
                keys::digest_after(key, &prefix)
            })
    }
}
