//! Usage of repositories: what each has, and how much of that no other repository has.
//!
//! Owns: the counters of a repository ([`RepositoryUsage`]), and [`track`], which every change of a link or manifest
//! goes through. Refuses: the rows themselves (`apply`), and counting by a walk; `fsck` does that.
//!
//! A repository *has* a digest while it links it or has it as a manifest. A digest that gets a second repository is no
//! longer unique to the first. One whose second repository loses it is unique to the one that is left. So a change
//! looks for two other repositories at most.
//!
//! Invariants: the counters are those of the rows in the same state. A repository without content has no row. A deleted
//! repository has what its remaining rows say. A digest is stored while a repository has it, so its length does not
//! change; one that is not stored counts as empty.

use bytes::Bytes;

use super::apply::slot;
use super::repository::Repository;
use super::view::{View, row};
use crate::digest::Digest;
use crate::error::Result;
use crate::format::keys::{self, RepositoryUsage};
use crate::format::transaction::RepositoryId;
use crate::state::Draft;

/// The repositories that have a digest, besides one.
enum Others {
    Nobody,
    One(RepositoryId),
    Several,
}

/// Makes a change of the link or manifest `digest` of a repository, and counts its effect.
pub(super) fn track(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    change: impl FnOnce(&mut Draft<'_>),
) -> Result<()> {
    let had = has(draft, repository, digest)?;
    change(draft);
    let has = has(draft, repository, digest)?;
    if had == has {
        return Ok(());
    }
    let bytes = slot(draft, digest)?.map_or(0, |slot| slot.extent.length);
    let others = others(draft, repository, digest, had)?;
    let is_unique = matches!(others, Others::Nobody);
    let unique = if is_unique { (1, bytes) } else { (0, 0) };
    let change = RepositoryUsage {
        blobs: 1,
        bytes,
        unique_blobs: unique.0,
        unique_bytes: unique.1,
    };
    count(draft, repository, has, &change)?;
    if let Others::One(other) = others {
        let change = RepositoryUsage {
            unique_blobs: 1,
            unique_bytes: bytes,
            ..RepositoryUsage::default()
        };
        count(draft, other, had, &change)?;
    }
    Ok(())
}

/// Adds `change` to the counters of a repository, or subtracts it.
fn count(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    add: bool,
    change: &RepositoryUsage,
) -> Result<()> {
    let key = keys::usage(repository);
    let value = draft.get(&key)?;
    let known = value.map(|value| row(&key, RepositoryUsage::decode(&value)));
    let usage = known.transpose()?.unwrap_or_default();
    let combine = if add {
        u64::saturating_add
    } else {
        u64::saturating_sub
    };
    let usage = RepositoryUsage {
        blobs: combine(usage.blobs, change.blobs),
        bytes: combine(usage.bytes, change.bytes),
        unique_blobs: combine(usage.unique_blobs, change.unique_blobs),
        unique_bytes: combine(usage.unique_bytes, change.unique_bytes),
    };
    if usage == RepositoryUsage::default() {
        draft.delete(key);
    } else {
        draft.put(key, usage.encode());
    }
    Ok(())
}

fn has(draft: &Draft<'_>, repository: RepositoryId, digest: &Digest) -> Result<bool> {
    // The reverses, whose pages the search for others needs, too.
    Ok(draft.get(&keys::holder(digest, repository))?.is_some()
        || draft
            .get(&keys::manifest_holder(digest, repository))?
            .is_some())
}

/// Finds which repositories other than `repository` have a digest.
///
/// With `later_first`, those with a higher id are looked at first. Purges and collection take links away in the order
/// of ids, so each would else pass all rows that were deleted before.
fn others(
    draft: &Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    later_first: bool,
) -> Result<Others> {
    let mut found = Others::Nobody;
    for (prefix, own) in [
        (keys::holders(digest), keys::holder(digest, repository)),
        (
            keys::manifest_holders(digest),
            keys::manifest_holder(digest, repository),
        ),
    ] {
        let starts: &[Option<&Bytes>] = if later_first {
            &[Some(&own), None]
        } else {
            &[None]
        };
        for after in starts {
            for holder in draft.scan_prefix(&prefix, after.map(|key| &key[..])) {
                let (key, _) = holder?;
                let id = RepositoryId(row(&key, keys::number_after(&key, &prefix))?);
                if later_first && after.is_none() && id >= repository {
                    break;
                }
                found = match found {
                    _ if id == repository => found,
                    Others::Nobody => Others::One(id),
                    Others::One(one) if one == id => found,
                    Others::One(_) | Others::Several => return Ok(Others::Several),
                };
            }
        }
    }
    Ok(found)
}

impl Repository<'_> {
    /// Returns what the repository has. Costs one lookup.
    pub fn usage(&self) -> Result<RepositoryUsage> {
        self.view().usage(self.id())
    }
}

impl View {
    /// Returns what a repository has, also one that was deleted and has rows left.
    pub(crate) fn usage(&self, repository: RepositoryId) -> Result<RepositoryUsage> {
        let key = keys::usage(repository);
        let value = self.state().get(&key)?;
        let known = value.map(|value| row(&key, RepositoryUsage::decode(&value)));
        Ok(known.transpose()?.unwrap_or_default())
    }

    /// Reads the rows by which the loss of `digest` is counted, so that they are in memory when it is applied.
    pub(crate) fn read_ahead_of_loss(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<()> {
        let draft = Draft::of(self.state());
        has(&draft, repository, digest)?;
        slot(&draft, digest)?;
        self.usage(repository)?;
        if let Others::One(other) = others(&draft, repository, digest, true)? {
            self.usage(other)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::apply;
    use crate::digest::Algorithm;
    use crate::extent::{Extent, Layout, Lsn, SegmentId, VolumeId};
    use crate::format::transaction::{Operation, Transaction};
    use crate::state::State;
    use crate::vocabulary::{ManifestEntry, Origin};

    const FIRST: RepositoryId = RepositoryId(1);
    const SECOND: RepositoryId = RepositoryId(2);
    const THIRD: RepositoryId = RepositoryId(3);

    struct Rig(State);

    impl Rig {
        fn apply(&mut self, operations: Vec<Operation>) {
            let transaction = Transaction {
                lsn: Lsn(self.0.lsn.0 + 1),
                unix_ms: 1,
                origin: Origin::default(),
                operations,
            };
            apply::transaction(&mut self.0, &transaction).unwrap();
        }

        /// Applies an operation twice, and checks the blobs of each repository: all, and the unique ones.
        fn check(&mut self, operation: &Operation, expected: [(u64, u64); 3]) {
            for _ in 0..2 {
                self.apply(vec![operation.clone()]);
                let view = View::new(self.0.clone().into());
                for (id, (blobs, unique_blobs)) in [FIRST, SECOND, THIRD].into_iter().zip(expected)
                {
                    let usage = RepositoryUsage {
                        blobs,
                        bytes: 7 * blobs,
                        unique_blobs,
                        unique_bytes: 7 * unique_blobs,
                    };
                    assert_eq!(view.usage(id).unwrap(), usage, "{id:?} after {operation:?}");
                    let has_row = self.0.get(&keys::usage(id)).unwrap().is_some();
                    assert_eq!(has_row, blobs > 0, "{id:?}");
                }
            }
        }
    }

    /// Guards: a digest counts once for each repository that links it or has it as a manifest, is unique while only one
    /// does, and an operation whose effect is there changes nothing.
    #[test]
    fn a_digest_is_unique_to_its_only_repository() {
        let digest = Digest::of(Algorithm::Sha256, b"content");
        let extent = Extent {
            volume: VolumeId(0),
            segment: SegmentId(1),
            offset: 4096,
            length: 7,
            layout: Layout::Leading,
        };
        let link = |repository| Operation::Link { repository, digest };
        let unlink = |repository| Operation::Unlink { repository, digest };
        let put = |repository| Operation::PutManifest {
            repository,
            entry: ManifestEntry {
                digest,
                size: 7,
                children: Vec::new(),
                subject: None,
                attributes: Bytes::new(),
            },
        };
        let delete = |repository| Operation::DeleteManifest { repository, digest };
        let mut rig = Rig(State::empty([5; 16]));
        rig.apply(vec![Operation::PlaceBlob { digest, extent }]);
        rig.check(&link(SECOND), [(0, 0), (1, 1), (0, 0)]);
        rig.check(&put(SECOND), [(0, 0), (1, 1), (0, 0)]);
        rig.check(&link(FIRST), [(1, 0), (1, 0), (0, 0)]);
        rig.check(&put(THIRD), [(1, 0), (1, 0), (1, 0)]);
        rig.check(&unlink(SECOND), [(1, 0), (1, 0), (1, 0)]);
        rig.check(&delete(SECOND), [(1, 0), (0, 0), (1, 0)]);
        rig.check(&unlink(FIRST), [(0, 0), (0, 0), (1, 1)]);
        rig.check(&link(FIRST), [(1, 0), (0, 0), (1, 0)]);
        rig.check(&delete(THIRD), [(1, 1), (0, 0), (0, 0)]);
        rig.check(&unlink(FIRST), [(0, 0), (0, 0), (0, 0)]);
        rig.apply(vec![Operation::RemoveBlob { digest, extent }]);
        rig.check(&unlink(FIRST), [(0, 0), (0, 0), (0, 0)]);
    }
}
