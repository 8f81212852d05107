//! The rules for manifests of a repository that nothing may keep (DESIGN D3).
//!
//! Owns: [`judge_manifest`], the only decision about a suspect among the manifests. It is made twice, like that about a
//! blob. Refuses: leases and pins; and which repository has which policy.
//!
//! A manifest is kept by a tag, by a kept manifest of the repository that lists it, and by a subject that is a kept
//! manifest of the repository. Without a policy an untagged manifest is kept, too, unless it is a follower. They
//! can form a circle: an index lists a manifest that is also its subject. So the search visits all
//! that may keep a suspect. If it reaches nothing that keeps itself, all that it visited is dead together.
//!
//! Invariant: what is removed was a suspect for its grace, as were all that might have kept it. So a client was
//! promised none of it, or took a lease.

use std::collections::BTreeSet;

use super::rules::{Due, is_in_grace};
use crate::catalog::{Repository, SuspectKind, View};
use crate::digest::Digest;
use crate::error::Result;
use crate::format::transaction::RepositoryId;

/// Manifests that one search visits. A larger circle of dead manifests stays; a larger tree is removed from its top.
const VISITED_MAX: usize = 32;

/// Which suspects of a repository may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// For which grace is over.
    pub due: Due,
    /// Untagged manifests are removed if they have been suspects since this time, in Unix ms; `None`: they are kept.
    pub untagged_until: Option<u64>,
}

/// What happens to a suspect among the manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ManifestVerdict {
    /// Nothing: it is no suspect of a repository that exists, or it is not known whether something keeps it or when it
    /// lost what kept it, or it stays a follower while a tag or a parent keeps it.
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
    if view.repository_name(repository)?.is_none() {
        // It was deleted, and its rows are purged.
        return Ok(ManifestVerdict::Stays);
    }
    let of = Repository::new(view, repository);
    let dead = match search(of, digest, terms)? {
        Found::Dead(dead) => dead,
        Found::Kept if kind == SuspectKind::Follower && !has_subject(of, digest)? => {
            return Ok(ManifestVerdict::Stays);
        }
        Found::Kept => return Ok(ManifestVerdict::Clear),
        Found::Unknown => return Ok(ManifestVerdict::Stays),
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
    Unknown,
    Dead(Vec<Digest>),
}

/// Searches up from a manifest for something that keeps itself. Looks at all that it may visit before it gives up.
fn search(of: Repository<'_>, digest: &Digest, terms: Terms) -> Result<Found> {
    let mut dead: Vec<Digest> = Vec::new();
    let mut seen = BTreeSet::from([*digest]);
    let mut next = vec![*digest];
    let mut is_unknown = false;
    while let Some(digest) = next.pop() {
        if of.has_mark(&digest)? {
            // It was put again, and the purge of its old tags, which may be very many, is not over.
            is_unknown = true;
        } else if of.has_live_tag(&digest)? {
            return Ok(Found::Kept);
        }
        if terms.untagged_until.is_none() && !of.is_follower(&digest)? {
            return Ok(Found::Kept);
        }
        dead.push(digest);
        let parents = of.parents(&digest).take(VISITED_MAX + 1);
        let mut keepers = parents.collect::<Result<Vec<_>>>()?;
        is_unknown |= keepers.len() > VISITED_MAX;
        keepers.extend(of.manifest(&digest)?.and_then(|entry| entry.subject));
        for keeper in keepers {
            if seen.contains(&keeper) {
                continue;
            }
            if !of.has_manifest(&keeper)? {
                // The purge of a retired keeper begins the time of what it kept anew.
                is_unknown |= of.has_mark(&keeper)?;
                continue;
            }
            if seen.len() < VISITED_MAX {
                seen.insert(keeper);
                next.push(keeper);
            } else {
                is_unknown = true;
            }
        }
    }
    Ok(if is_unknown {
        Found::Unknown
    } else {
        Found::Dead(dead)
    })
}

fn has_subject(of: Repository<'_>, digest: &Digest) -> Result<bool> {
    let subject = of.manifest(digest)?.and_then(|entry| entry.subject);
    subject.map_or(Ok(false), |subject| of.has_manifest(&subject))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::catalog::apply;
    use crate::digest::Algorithm;
    use crate::extent::Lsn;
    use crate::format::transaction::{Operation, Transaction};
    use crate::state::State;
    use crate::vocabulary::{ManifestEntry, Origin};

    const HERE: RepositoryId = RepositoryId(1);
    /// Untagged manifests are removed at once.
    const TERMS: Terms = Terms {
        due: Due::UpTo(Lsn(u64::MAX)),
        untagged_until: Some(u64::MAX),
    };

    struct Rig(State);

    impl Rig {
        fn new() -> Self {
            let mut rig = Self(State::empty([7; 16]));
            let name = "r".to_owned();
            rig.apply(vec![Operation::CreateRepository { id: HERE, name }]);
            rig
        }

        fn apply(&mut self, operations: Vec<Operation>) {
            let transaction = Transaction {
                lsn: Lsn(self.0.lsn.0 + 1),
                unix_ms: 1,
                origin: Origin::default(),
                operations,
            };
            apply::transaction(&mut self.0, &transaction).unwrap();
        }

        fn put(&mut self, digest: Digest, children: Vec<Digest>) {
            let entry = ManifestEntry {
                digest,
                size: 1,
                children,
                subject: None,
                attributes: Bytes::new(),
            };
            let repository = HERE;
            self.apply(vec![Operation::PutManifest { repository, entry }]);
        }

        fn tag(&mut self, digest: Digest) {
            self.apply(vec![Operation::SetTag {
                repository: HERE,
                tag: "t".into(),
                digest,
                old: None,
            }]);
        }

        /// Makes a manifest a suspect, whatever keeps it.
        fn suspect(&mut self, digest: Digest) {
            let repository = HERE;
            self.apply(vec![Operation::SuspectManifest { repository, digest }]);
        }

        fn judge(&self, digest: &Digest) -> ManifestVerdict {
            judge_manifest(&View::new(self.0.clone().into()), HERE, digest, TERMS).unwrap()
        }
    }

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_le_bytes())
    }

    /// Guards: a manifest with more parents than a search visits is kept if one of those is, and stays if that is not
    /// known. Edges of retired manifests do not hide a parent.
    #[test]
    fn a_child_of_very_many_stays() {
        let child = digest(0);
        let parents: Vec<_> = (1..=VISITED_MAX + 8).map(digest).collect();
        let last = parents.iter().max().copied().unwrap();
        let mut rig = Rig::new();
        rig.put(child, vec![]);
        for parent in &parents {
            rig.put(*parent, vec![child]);
        }
        rig.tag(last);
        rig.suspect(child);
        assert_eq!(rig.judge(&child), ManifestVerdict::Stays);
        let repository = HERE;
        for parent in parents.iter().filter(|parent| **parent != last) {
            let digest = *parent;
            rig.apply(vec![Operation::RetireManifest { repository, digest }]);
        }
        assert_eq!(rig.judge(&child), ManifestVerdict::Stays);
        rig.tag(child);
        rig.suspect(child);
        assert_eq!(rig.judge(&child), ManifestVerdict::Clear);
        let first = parents.iter().min().copied().unwrap();
        let mut rig = Rig::new();
        rig.put(child, vec![]);
        for parent in &parents {
            rig.put(*parent, vec![child]);
        }
        rig.tag(first);
        rig.suspect(child);
        assert_eq!(rig.judge(&child), ManifestVerdict::Clear);
    }

    /// Guards: a circle of manifests is dead as a whole, and one that a search cannot see as a whole stays.
    #[test]
    fn a_circle_is_judged_as_a_whole() {
        for length in [VISITED_MAX, VISITED_MAX + 1] {
            let mut rig = Rig::new();
            let members: Vec<_> = (0..length).map(digest).collect();
            for (at, member) in members.iter().enumerate() {
                rig.put(*member, vec![members[(at + 1) % length]]);
            }
            for member in &members {
                rig.suspect(*member);
            }
            let dead = match rig.judge(&members[0]) {
                ManifestVerdict::Remove(dead) => Some(dead.len()),
                ManifestVerdict::Stays
                | ManifestVerdict::Clear
                | ManifestVerdict::InGrace
                | ManifestVerdict::Suspect(_) => None,
            };
            assert_eq!(dead, (length <= VISITED_MAX).then_some(length));
            rig.tag(members[length / 2]);
            assert_eq!(rig.judge(&members[length / 2 + 1]), ManifestVerdict::Clear);
        }
    }

    /// Guards: a child stays while edges of a retired parent remain, because their removal begins its time anew. So
    /// does a manifest that was put again while its own old tags remain.
    #[test]
    fn a_child_of_a_retired_parent_stays_until_the_purge() {
        let (child, parent, repository) = (digest(0), digest(1), HERE);
        let mut rig = Rig::new();
        rig.put(child, vec![]);
        rig.put(parent, vec![child]);
        rig.suspect(child);
        let retire = |digest| Operation::RetireManifest { repository, digest };
        rig.apply(vec![retire(parent)]);
        assert_eq!(rig.judge(&child), ManifestVerdict::Stays);
        let (digest, children) = (parent, vec![child]);
        rig.apply(vec![
            Operation::DropEdges {
                repository,
                digest,
                children,
            },
            Operation::ForgetManifest { repository, digest },
        ]);
        assert_eq!(rig.judge(&child), ManifestVerdict::Remove(vec![child]));
        rig.apply(vec![retire(child)]);
        rig.put(child, vec![]);
        assert_eq!(rig.judge(&child), ManifestVerdict::Stays);
        let digest = child;
        rig.apply(vec![Operation::ForgetManifest { repository, digest }]);
        assert_eq!(rig.judge(&child), ManifestVerdict::Remove(vec![child]));
    }

    /// Guards: the rows of a deleted repository are left to its purge: no operation of collection adds to them.
    #[test]
    fn nothing_is_judged_in_a_deleted_repository() {
        let mut rig = Rig::new();
        rig.put(digest(0), vec![]);
        assert_eq!(
            rig.judge(&digest(0)),
            ManifestVerdict::Remove(vec![digest(0)])
        );
        let (id, name) = (HERE, "r".to_owned());
        rig.apply(vec![Operation::DeleteRepository { id, name }]);
        assert_eq!(rig.judge(&digest(0)), ManifestVerdict::Stays);
    }
}
