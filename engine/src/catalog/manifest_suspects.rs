//! Manifests that may be garbage in their repository: the rows that operations put, and reads of them.
//!
//! Owns: the rows of suspects among the manifests. Refuses: deciding about them (`collection::manifests`).
//!
//! A manifest of a repository is a suspect once an operation took away what may have kept it: a tag, a parent, its
//! subject, or because it was put without a tag. The operation does not look for what else may keep it. A suspect is
//! *untagged*, or a *follower*: its subject was a manifest of the repository and was deleted. Only a push of the same
//! manifest, or the return of its subject, ends that. A push after the deletion makes no follower, although a large
//! subject is purged later. Repositories without a policy keep untagged manifests; followers are removed in all.
//!
//! Invariants: a suspect has one of the two rows. A manifest without a tag, a parent and a present subject is a
//! suspect, unless rows of its retired parent or subject remain. Repositories that were deleted get no new row.

use bytes::Bytes;

use super::repository::Repository;
use super::view::{Rows, View, row};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::keys::{self, Suspect};
use crate::format::row::table;
use crate::format::transaction::{Operation, RepositoryId, Transaction};
use crate::state::Draft;
use crate::vocabulary::ManifestEntry;

/// Why a manifest is a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SuspectKind {
    /// Nothing may keep it.
    Untagged,
    /// Its subject was deleted.
    Follower,
}

impl SuspectKind {
    fn key(self, repository: RepositoryId, digest: &Digest) -> Bytes {
        match self {
            Self::Untagged => keys::untagged(repository, digest),
            Self::Follower => keys::follower(repository, digest),
        }
    }

    fn table(self) -> u8 {
        match self {
            Self::Untagged => table::UNTAGGED,
            Self::Follower => table::FOLLOWER,
        }
    }
}

fn since(within: &Transaction) -> Bytes {
    let since = Suspect {
        lsn: within.lsn,
        unix_ms: within.unix_ms,
    };
    since.encode()
}

/// Makes a manifest that was put a suspect, unless the same transaction tags it. It follows no subject.
pub(super) fn suspect_put(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    within: &Transaction,
) -> Result<()> {
    let tags = |operation: &Operation| {
        matches!(operation, Operation::SetTag { repository: at, digest: tagged, .. }
            if (*at, tagged) == (repository, digest))
    };
    delete_known(draft, keys::follower(repository, digest))?;
    if !within.operations.iter().any(tags) {
        draft.put(keys::untagged(repository, digest), since(within));
    }
    Ok(())
}

/// Does the same for a manifest that was put before.
pub(super) fn suspect_put_again(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    within: &Transaction,
) -> Result<()> {
    if draft.changes.retired > 0 {
        let key = keys::manifest(repository, digest);
        if let Some(value) = draft.get(&key)? {
            let entry = row(&key, keys::decode_manifest(*digest, &value))?;
            if let Some(subject) = &entry.subject {
                put_referrer(draft, repository, (subject, digest), within)?;
            }
        }
    }
    suspect_put(draft, repository, digest, within)
}

/// Enters a manifest among the referrers of its subject. While rows of the deleted subject remain, the row has the
/// transaction of the push, so that the purge of the subject passes over it.
pub(super) fn put_referrer(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    (subject, referrer): (&Digest, &Digest),
    within: &Transaction,
) -> Result<()> {
    let is_marked =
        draft.changes.retired > 0 && draft.get(&keys::retired(repository, subject))?.is_some();
    let pushed = if is_marked {
        keys::encode_lsn(within.lsn)
    } else {
        Bytes::new()
    };
    draft.put(keys::referrer(repository, subject, referrer), pushed);
    Ok(())
}

/// Makes a manifest a suspect because it lost a tag or a parent. Does nothing if the repository has no such manifest.
pub(super) fn suspect_manifest(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    within: &Transaction,
) -> Result<()> {
    if !exists(draft, repository)? || draft.get(&keys::manifest(repository, digest))?.is_none() {
        return Ok(());
    }
    let follower = keys::follower(repository, digest);
    let key = match draft.get(&follower)? {
        Some(_) => follower,
        None => keys::untagged(repository, digest),
    };
    draft.put(key, since(within));
    Ok(())
}

/// Clears an untagged manifest that got a tag or a parent. A follower stays one: it may lose them again.
pub(super) fn clear_untagged(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<()> {
    delete_known(draft, keys::untagged(repository, digest))
}

/// Clears a manifest that is kept, or no longer there.
pub(super) fn clear(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<()> {
    delete_known(draft, keys::untagged(repository, digest))?;
    delete_known(draft, keys::follower(repository, digest))
}

/// Clears a deleted manifest, and makes all its referrers followers.
pub(super) fn suspect_referrers(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    subject: &Digest,
    within: &Transaction,
) -> Result<()> {
    clear(draft, repository, subject)?;
    if !exists(draft, repository)? {
        return Ok(());
    }
    let prefix = keys::referrers(repository, subject);
    let rows = draft
        .scan_prefix(&prefix, None)
        .collect::<Result<Vec<_>>>()?;
    for (key, _) in rows {
        let referrer =
            keys::digest_after(&key, &prefix).map_err(|what| Error::bad_row(&key, &what))?;
        follow(draft, repository, &referrer, within)?;
    }
    Ok(())
}

/// Makes referrers of a retired manifest followers, unless the manifest was put again.
pub(super) fn follow_subject(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    subject: &Digest,
    referrers: &[Digest],
    within: &Transaction,
) -> Result<()> {
    if draft.get(&keys::manifest(repository, subject))?.is_some() {
        return Ok(());
    }
    for referrer in referrers {
        follow(draft, repository, referrer, within)?;
    }
    Ok(())
}

fn follow(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    within: &Transaction,
) -> Result<()> {
    if draft.get(&keys::manifest(repository, digest))?.is_some() {
        delete_known(draft, keys::untagged(repository, digest))?;
        draft.put(keys::follower(repository, digest), since(within));
    }
    Ok(())
}

fn exists(draft: &Draft<'_>, repository: RepositoryId) -> Result<bool> {
    Ok(draft.get(&keys::repository_by_id(repository))?.is_some())
}

/// Deletes a row that is mostly not there.
fn delete_known(draft: &mut Draft<'_>, key: Bytes) -> Result<()> {
    if draft.get(&key)?.is_some() {
        draft.delete(key);
    }
    Ok(())
}

impl Repository<'_> {
    /// Returns whether a manifest is a suspect, or has a tag, a parent or a subject, or rows of one that was retired.
    pub(crate) fn is_kept_or_suspect(&self, entry: &ManifestEntry) -> Result<bool> {
        let (view, id, digest) = (self.view(), self.id(), &entry.digest);
        if view.manifest_suspect(id, digest)?.is_some()
            || self.has_live_tag(digest)?
            || self.parents(digest).next().transpose()?.is_some()
        {
            return Ok(true);
        }
        let Some(subject) = &entry.subject else {
            return Ok(false);
        };
        Ok(self.has_manifest(subject)? || view.retired_at(id, subject)?.is_some())
    }
}

impl View {
    /// Reads what an operation reads that makes a manifest a suspect.
    pub(crate) fn read_ahead_of_suspicion(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<()> {
        Repository::new(self, repository).has_manifest(digest)?;
        self.manifest_suspect(repository, digest).map(drop)
    }

    /// Returns since when a manifest is a suspect, and why; `None` if it is none.
    pub(crate) fn manifest_suspect(
        &self,
        repository: RepositoryId,
        digest: &Digest,
    ) -> Result<Option<(SuspectKind, Suspect)>> {
        for kind in [SuspectKind::Untagged, SuspectKind::Follower] {
            let key = kind.key(repository, digest);
            if let Some(value) = self.state().get(&key)? {
                return Ok(Some((kind, row(&key, Suspect::decode(&value))?)));
            }
        }
        Ok(None)
    }

    /// Lists the suspects of one kind of a repository, in the order of their digests.
    pub(crate) fn manifest_suspects(
        &self,
        kind: SuspectKind,
        repository: RepositoryId,
    ) -> Rows<(Digest, Suspect)> {
        let prefix = keys::owned(kind.table(), repository);
        self.rows(&prefix, |key, value, prefix| {
            Ok((keys::digest_after(key, prefix)?, Suspect::decode(value)?))
        })
    }

    /// Returns the first repository from `from` on that has suspects of this kind.
    pub(crate) fn next_with_suspects(
        &self,
        kind: SuspectKind,
        from: RepositoryId,
    ) -> Result<Option<RepositoryId>> {
        self.next_owner(kind.table(), from)
    }
}
