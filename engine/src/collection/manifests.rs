//! The rules for manifests of a repository that nothing may keep (DESIGN D3).
//!
//! Owns: [`judge_manifest`], the only decision about a suspect among the manifests. It is made twice, like that about a
//! blob. Refuses: leases and pins; and which repository has which policy.
//!
//! A manifest is kept by a tag, by a kept manifest of the repository that lists it, and by a subject that is a kept
//! manifest of the repository. Without a policy an untagged manifest is kept, too, unless it is a follower. Such keepers
//! can form a circle: an index lists a manifest that is also its subject. So the search goes up through all keepers. If
//! it reaches nothing that keeps itself, all that it visited is dead together.
//!
//! Invariant: what is removed was a suspect for its grace, as were all that might have kept it. So a client was
//! promised none of it, or took a lease.

use std::collections::BTreeSet;

use super::rules::{Due, is_in_grace};
use crate::catalog::{Repository, SuspectKind, View};
use crate::digest::Digest;
use crate::error::Result;
use crate::format::transaction::RepositoryId;

/// Manifests that one search visits. A larger circle of dead manifests stays; a larger tree goes from its top.
pub(crate) const VISITED_MAX: usize = 32;

/// Which suspects of a repository may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// For which grace is over.
    pub due: Due,
    /// Untagged manifests go if they have been suspects since this time, in Unix ms; `None`: they are kept.
    pub untagged_until: Option<u64>,
}

/// What happens to a suspect among the manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ManifestVerdict {
    /// Nothing: it is no suspect, or it is not known whether something keeps it, or it stays a follower while a tag or
    /// a parent keeps it.
    Stays,
    /// It is cleared: something keeps it.
    Clear,
    /// It is kept, because it, or another one that is dead with it, became a suspect too short a time ago.
    InGrace,
    /// Nothing keeps these either, which become suspects now.
    Suspect(Vec<Digest>),
    /// All of these are removed: nothing keeps them, except each other.
    Remove(Vec<Digest>),
}

/// Judges a manifest in one state.
pub(crate) fn judge_manifest(
    view: &View,
    repository: RepositoryId,
    digest: &Digest,
    terms: Terms,
) -> Result<ManifestVerdict> {
    let Some((kind, _)) = view.manifest_suspect(repository, digest)? else {
        return Ok(ManifestVerdict::Stays);
    };
    let of = Repository::new(view, repository);
    let dead = match search(of, digest, terms)? {
        Found::Dead(dead) => dead,
        Found::Kept if kind == SuspectKind::Follower && !has_subject(of, digest)? => {
            return Ok(ManifestVerdict::Stays);
        }
        Found::Kept => return Ok(ManifestVerdict::Clear),
        Found::TooMany => return Ok(ManifestVerdict::Stays),
    };
    let (mut unknown, mut in_grace) = (Vec::new(), false);
    for member in &dead {
        let Some((kind, suspect)) = view.manifest_suspect(repository, member)? else {
            unknown.push(*member);
            continue;
        };
        let waits = kind == SuspectKind::Untagged
            && terms
                .untagged_until
                .is_none_or(|until| suspect.unix_ms > until);
        in_grace |= waits || is_in_grace(&suspect, terms.due);
    }
    if !unknown.is_empty() {
        return Ok(ManifestVerdict::Suspect(unknown));
    }
    if in_grace {
        return Ok(ManifestVerdict::InGrace);
    }
    Ok(ManifestVerdict::Remove(dead))
}

enum Found {
    Kept,
    TooMany,
    Dead(Vec<Digest>),
}

/// Searches up from a manifest for something that keeps itself.
fn search(of: Repository<'_>, digest: &Digest, terms: Terms) -> Result<Found> {
    let mut dead: Vec<Digest> = Vec::new();
    let mut seen = BTreeSet::from([*digest]);
    let mut next = vec![*digest];
    while let Some(digest) = next.pop() {
        if of.has_live_tag(&digest)? {
            return Ok(Found::Kept);
        }
        if terms.untagged_until.is_none() && !of.is_follower(&digest)? {
            return Ok(Found::Kept);
        }
        dead.push(digest);
        let parents = of.parents(&digest).take(VISITED_MAX + 1);
        let mut keepers = parents.collect::<Result<Vec<_>>>()?;
        keepers.extend(of.manifest(&digest)?.and_then(|entry| entry.subject));
        for keeper in keepers {
            // Edges of a retired manifest are no manifest.
            if !seen.contains(&keeper) && of.has_manifest(&keeper)? {
                seen.insert(keeper);
                next.push(keeper);
            }
            if seen.len() > VISITED_MAX {
                return Ok(Found::TooMany);
            }
        }
    }
    Ok(Found::Dead(dead))
}

fn has_subject(of: Repository<'_>, digest: &Digest) -> Result<bool> {
    let subject = of.manifest(digest)?.and_then(|entry| entry.subject);
    subject.map_or(Ok(false), |subject| of.has_manifest(&subject))
}
