//! Which names need a blob.
//!
//! Owns: [`NeededBy`] and the walk from a blob up to tags. Refuses: life (`collection::rules`); it is for messages.
//!
//! Invariant: the walk is bounded by the length of its lists, whatever the catalog holds.

use std::collections::{HashSet, VecDeque};

use super::repository::Repository;
use super::view::View;
use crate::digest::Digest;
use crate::error::Result;
use crate::format::keys;
use crate::format::transaction::RepositoryId;

/// The names that need a blob, each with its repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NeededBy {
    /// Repositories in which the blob is visible.
    pub repositories: Vec<String>,
    /// Manifests: the blob itself, if it is one, and those that list it, directly or through others.
    pub manifests: Vec<(String, Digest)>,
    /// Tags of these manifests.
    pub tags: Vec<(String, String)>,
    /// Whether there are more than the lists have.
    pub more: bool,
}

impl View {
    /// Returns what needs a blob, at most `limit` of each kind.
    pub fn needed_by(&self, digest: &Digest, limit: usize) -> Result<NeededBy> {
        let mut needed = NeededBy {
            repositories: self.holders(digest, limit + 1)?,
            manifests: self.manifests_with(digest, limit + 1)?,
            ..NeededBy::default()
        };
        for (name, manifest) in &needed.manifests {
            if needed.tags.len() > limit {
                break;
            }
            let Some(repository) = self.repository(name)? else {
                continue;
            };
            let tags = repository.tags_at(manifest, limit + 1)?;
            let tags = tags.into_iter().map(|tag| (name.clone(), tag));
            needed.tags.extend(tags);
        }
        needed.more = needed.repositories.len() > limit
            || needed.manifests.len() > limit
            || needed.tags.len() > limit;
        needed.repositories.truncate(limit);
        needed.manifests.truncate(limit);
        needed.tags.truncate(limit);
        Ok(needed)
    }

    /// Lists at most `limit` manifests that are a digest or list it, directly or through others of their repository,
    /// each with its repository. Those that are it come first, and those that list another of them after that one.
    pub fn manifests_with(&self, digest: &Digest, limit: usize) -> Result<Vec<(String, Digest)>> {
        let mut manifests = Vec::new();
        let mut seen = HashSet::new();
        let mut queue = VecDeque::new();
        let mut add = |found: Vec<(RepositoryId, Digest)>, queue: &mut VecDeque<_>| {
            queue.extend(found.into_iter().filter(|manifest| seen.insert(*manifest)));
        };
        add(self.manifest_in(digest, limit)?, &mut queue);
        add(
            self.parents(digest, &keys::parents(digest), limit)?,
            &mut queue,
        );
        while let Some((id, manifest)) = queue.pop_front() {
            if manifests.len() == limit {
                break;
            }
            // The rows of a deleted repository have no name.
            let Some(name) = self.repository_name(id)? else {
                continue;
            };
            if Repository::new(self, id).has_manifest(&manifest)? {
                manifests.push((name, manifest));
            }
            let here = keys::parents_in(&manifest, id);
            add(self.parents(&manifest, &here, limit)?, &mut queue);
        }
        Ok(manifests)
    }

    /// Lists at most `limit` repositories that have a digest as a manifest, each with the digest.
    fn manifest_in(&self, digest: &Digest, limit: usize) -> Result<Vec<(RepositoryId, Digest)>> {
        let prefix = keys::manifest_holders(digest);
        self.collect(&prefix, None, limit, |key, _| {
            Ok((RepositoryId(keys::number_after(key, &prefix)?), *digest))
        })
    }

    /// Lists at most `limit` manifests that list a digest, each with its repository: those whose keys begin with
    /// `within`.
    fn parents(
        &self,
        child: &Digest,
        within: &[u8],
        limit: usize,
    ) -> Result<Vec<(RepositoryId, Digest)>> {
        let all = keys::parents(child);
        self.collect(within, None, limit, |key, _| keys::parent_after(key, &all))
    }
}

impl std::fmt::Display for NeededBy {
    /// Writes tags, else manifests, else repositories.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = if !self.tags.is_empty() {
            let tags = self.tags.iter();
            tags.map(|(name, tag)| format!("{name}:{tag}")).collect()
        } else if !self.manifests.is_empty() {
            let manifests = self.manifests.iter();
            manifests
                .map(|(name, digest)| format!("{name}@{digest}"))
                .collect()
        } else {
            self.repositories.clone()
        };
        if names.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str(&names.join(", "))?;
        f.write_str(if self.more { ", ..." } else { "" })
    }
}
