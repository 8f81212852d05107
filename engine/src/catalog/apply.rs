//! The rows that each operation changes.
//!
//! Owns: the meaning of every operation, the same at commit and at replay. Refuses: checking preconditions, because an
//! operation in the journal was checked before it was written. An operation that is applied twice, or whose effect is
//! already there, changes nothing.

use bytes::Bytes;

use super::manifest_suspects;
use super::usage;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, SegmentId};
use crate::format::keys::{self, DamagedPlace, SegmentUse, Slot, Suspect, TagValue};
use crate::format::proof::Proof;
use crate::format::record::RecordPlaces;
use crate::format::transaction::{Operation, RepositoryId, Transaction};
use crate::state::{Draft, State};
use crate::vocabulary::ManifestEntry;

/// Applies a transaction, which becomes the state's last. Returns the segments that lost a live blob. On an
/// error, such as a row that is not in memory, the state is unchanged.
pub(crate) fn transaction(state: &mut State, transaction: &Transaction) -> Result<Vec<SegmentId>> {
    let mut draft = Draft::of(state);
    for change in &transaction.operations {
        operation(&mut draft, change, transaction)?;
    }
    let mut changes = draft.changes;
    changes.lsn = transaction.lsn;
    let shrunk = std::mem::take(&mut changes.shrunk);
    state.apply(changes);
    Ok(shrunk)
}

fn operation(draft: &mut Draft<'_>, operation: &Operation, within: &Transaction) -> Result<()> {
    match operation {
        Operation::CreateRepository { id, name } => create_repository(draft, *id, name),
        Operation::Link { repository, digest } => link(draft, *repository, digest, within)?,
        Operation::Unlink { repository, digest } => unlink(draft, *repository, digest)?,
        Operation::PutManifest { repository, entry } => {
            put_manifest(draft, *repository, entry, within)?;
        }
        Operation::DeleteManifest { repository, digest } => {
            delete_manifest(draft, *repository, digest, within)?;
            manifest_suspects::suspect_referrers(draft, *repository, digest, within)?;
        }
        Operation::SetTag {
            repository,
            tag,
            digest,
            old,
        } => {
            set_tag(draft, *repository, (tag, digest), old.as_ref(), within)?;
        }
        Operation::DeleteTag {
            repository,
            tag,
            old,
        } => delete_tag(draft, *repository, (tag, old), within)?,
        Operation::DeleteRepository { id, name } => {
            draft.delete(keys::repository_by_name(name));
            draft.delete(keys::repository_by_id(*id));
            draft.put(keys::deleted(*id), Bytes::copy_from_slice(name.as_bytes()));
        }
        Operation::RetireManifest { repository, digest } => {
            retire_manifest(draft, *repository, digest, within)?;
        }
        Operation::DropEdges {
            repository,
            digest,
            children,
        } => {
            let mut children = children.iter();
            children.try_for_each(|child| drop_edge(draft, *repository, digest, child, within))?;
        }
        Operation::ForgetManifest { repository, digest } => {
            forget_manifest(draft, *repository, digest)?;
        }
        Operation::FollowSubject {
            repository,
            subject,
            referrers,
        } => manifest_suspects::follow_subject(draft, *repository, subject, referrers, within)?,
        Operation::SuspectManifest { repository, digest } => {
            manifest_suspects::suspect_put_again(draft, *repository, digest, within)?;
        }
        Operation::ForgetRepository { id } => {
            draft.delete(keys::deleted(*id));
            draft.delete(keys::usage(*id));
        }
        Operation::PlaceBlob { digest, extent } => place(draft, digest, *extent, within)?,
        Operation::ReserveSegmentIds { limit } => reserve_segments(draft, *limit),
        Operation::MarkDamaged {
            digest,
            extent,
            proof,
        } => mark_damaged(draft, digest, *extent, *proof)?,
        Operation::MarkWhole { digest, extent } => mark_whole(draft, digest, extent)?,
        Operation::RemoveBlob { digest, extent } => remove_blob(draft, digest, extent)?,
        Operation::ClearSuspect { digest } => draft.delete(keys::suspect(digest)),
        Operation::ClearManifest { repository, digest } => {
            manifest_suspects::clear(draft, *repository, digest)?;
        }
    }
    Ok(())
}

fn create_repository(draft: &mut Draft<'_>, id: RepositoryId, name: &str) {
    let bytes = Bytes::copy_from_slice(name.as_bytes());
    draft.put(keys::repository_by_name(name), keys::encode_id(id));
    draft.put(keys::repository_by_id(id), bytes);
    draft.changes.next_repository = draft.changes.next_repository.max(id.0 + 1);
}

fn link(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    within: &Transaction,
) -> Result<()> {
    usage::track(draft, repository, digest, |draft| {
        draft.put(keys::link(repository, digest), Bytes::new());
        draft.put(keys::holder(digest, repository), Bytes::new());
    })?;
    suspect(draft, digest, within);
    Ok(())
}

fn unlink(draft: &mut Draft<'_>, repository: RepositoryId, digest: &Digest) -> Result<()> {
    usage::track(draft, repository, digest, |draft| {
        draft.delete(keys::link(repository, digest));
        draft.delete(keys::holder(digest, repository));
    })
}

fn set_tag(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    (tag, digest): (&str, &Digest),
    old: Option<&Digest>,
    within: &Transaction,
) -> Result<()> {
    if let Some(old) = old {
        draft.delete(keys::tagged(repository, old, tag));
    }
    let value = TagValue {
        digest: *digest,
        lsn: within.lsn,
        unix_ms: within.unix_ms,
    };
    draft.put(keys::tag(repository, tag), value.encode());
    draft.put(keys::tagged(repository, digest, tag), Bytes::new());
    manifest_suspects::clear_untagged(draft, repository, digest)?;
    match old {
        Some(old) if old != digest => {
            manifest_suspects::suspect_manifest(draft, repository, old, within)
        }
        Some(_) | None => Ok(()),
    }
}

fn delete_tag(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    (tag, old): (&str, &Digest),
    within: &Transaction,
) -> Result<()> {
    draft.delete(keys::tag(repository, tag));
    draft.delete(keys::tagged(repository, old, tag));
    manifest_suspects::suspect_manifest(draft, repository, old, within)
}

fn forget_manifest(draft: &mut Draft<'_>, repository: RepositoryId, digest: &Digest) -> Result<()> {
    let key = keys::retired(repository, digest);
    if draft.get(&key)?.is_some() {
        draft.changes.retired = draft.changes.retired.saturating_sub(1);
        draft.delete(key);
    }
    Ok(())
}

fn drop_edge(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    child: &Digest,
    within: &Transaction,
) -> Result<()> {
    draft.delete(keys::child(repository, digest, child));
    draft.delete(keys::parent(child, repository, digest));
    suspect(draft, child, within);
    manifest_suspects::suspect_manifest(draft, repository, child, within)
}

/// Makes a digest a suspect, because it lost a reference or has none yet. Others may remain: collection looks, so that
/// commits need not.
fn suspect(draft: &mut Draft<'_>, digest: &Digest, within: &Transaction) {
    let since = Suspect {
        lsn: within.lsn,
        unix_ms: within.unix_ms,
    };
    draft.put(keys::suspect(digest), since.encode());
}

fn put_manifest(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    entry: &ManifestEntry,
    within: &Transaction,
) -> Result<()> {
    // The bytes of a digest never change, but its entry may: an upgrade can learn new edges.
    delete_manifest(draft, repository, &entry.digest, within)?;
    if draft.changes.retired > 0 {
        // It was deleted and put again before all of its old edges were removed.
        drop_edges(draft, repository, &entry.digest, within)?;
    }
    usage::track(draft, repository, &entry.digest, |draft| {
        let (digest, row) = (&entry.digest, keys::encode_manifest(entry));
        draft.put(keys::manifest(repository, digest), row);
        draft.put(keys::manifest_holder(digest, repository), Bytes::new());
    })?;
    draft.delete(keys::suspect(&entry.digest));
    for child in &entry.children {
        draft.delete(keys::suspect(child));
        draft.put(keys::child(repository, &entry.digest, child), Bytes::new());
        draft.put(keys::parent(child, repository, &entry.digest), Bytes::new());
        manifest_suspects::clear_untagged(draft, repository, child)?;
    }
    if let Some(subject) = &entry.subject {
        manifest_suspects::put_referrer(draft, repository, (subject, &entry.digest), within)?;
    }
    manifest_suspects::suspect_put(draft, repository, &entry.digest, within)
}

fn delete_manifest(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    within: &Transaction,
) -> Result<()> {
    let key = keys::manifest(repository, digest);
    let Some(value) = draft.get(&key)? else {
        return Ok(());
    };
    let entry =
        keys::decode_manifest(*digest, &value).map_err(|what| Error::bad_row(&key, &what))?;
    drop_edges(draft, repository, digest, within)?;
    remove_manifest_row(draft, repository, &entry, within)
}

/// Removes the row of a manifest, its reverse, and its place among the referrers of its subject.
fn remove_manifest_row(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    entry: &ManifestEntry,
    within: &Transaction,
) -> Result<()> {
    let digest = &entry.digest;
    if let Some(subject) = &entry.subject {
        draft.delete(keys::referrer(repository, subject, digest));
    }
    usage::track(draft, repository, digest, |draft| {
        draft.delete(keys::manifest(repository, digest));
        draft.delete(keys::manifest_holder(digest, repository));
    })?;
    suspect(draft, digest, within);
    Ok(())
}

/// Removes a manifest's row and marks it as retired. Its tags and edges stay until they are purged.
fn retire_manifest(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    within: &Transaction,
) -> Result<()> {
    let key = keys::manifest(repository, digest);
    let Some(value) = draft.get(&key)? else {
        return Ok(());
    };
    let entry =
        keys::decode_manifest(*digest, &value).map_err(|what| Error::bad_row(&key, &what))?;
    remove_manifest_row(draft, repository, &entry, within)?;
    let mark = keys::retired(repository, digest);
    if draft.get(&mark)?.is_none() {
        draft.changes.retired = draft.changes.retired.saturating_add(1);
    }
    draft.put(mark, keys::encode_lsn(within.lsn));
    manifest_suspects::clear(draft, repository, digest)
}

fn drop_edges(
    draft: &mut Draft<'_>,
    repository: RepositoryId,
    digest: &Digest,
    within: &Transaction,
) -> Result<()> {
    let prefix = keys::children(repository, digest);
    let edges = draft
        .scan_prefix(&prefix, None)
        .collect::<Result<Vec<_>>>()?;
    for (edge, _) in edges {
        let child =
            keys::digest_after(&edge, &prefix).map_err(|what| Error::bad_row(&edge, &what))?;
        drop_edge(draft, repository, digest, &child, within)?;
    }
    Ok(())
}

fn place(
    draft: &mut Draft<'_>,
    digest: &Digest,
    extent: Extent,
    within: &Transaction,
) -> Result<()> {
    if let Some(old) = slot(draft, digest)? {
        if old.extent == extent {
            return Ok(());
        }
        let mark = keys::damaged(digest);
        if draft.get(&mark)?.is_some() {
            draft.delete(mark);
        }
        release(draft, &old.extent)?;
    } else if !is_used(within, digest) {
        suspect(draft, digest, within);
    }
    // If no record can lie around an extent, its first read finds that.
    let places = RecordPlaces::of(&extent).ok();
    adjust(draft, extent.segment, |used| {
        used.live_bytes = used.live_bytes.saturating_add(extent.length);
        used.live_blobs += 1;
        if let Some(places) = places {
            used.record_bytes = used.record_bytes.saturating_add(places.occupied_bytes());
            used.end = used.end.max(places.end);
        }
    })?;
    draft.put(
        keys::blob(draft.hash_key(), digest),
        Slot {
            generation: within.lsn,
            extent,
        }
        .encode(),
    );
    Ok(())
}

/// Returns whether the transaction also links the digest or puts it as a manifest. That decides whether it is a
/// suspect.
fn is_used(within: &Transaction, digest: &Digest) -> bool {
    let uses = |operation: &Operation| {
        matches!(operation, Operation::Link { digest: linked, .. } if linked == digest)
            || matches!(operation, Operation::PutManifest { entry, .. } if entry.digest == *digest)
    };
    within.operations.iter().any(uses)
}

/// Removes an index row whose blob is at `extent`. A blob that was placed elsewhere since stays.
fn remove_blob(draft: &mut Draft<'_>, digest: &Digest, extent: &Extent) -> Result<()> {
    if slot(draft, digest)?.is_some_and(|slot| slot.extent == *extent) {
        release(draft, extent)?;
        draft.delete(keys::blob(draft.hash_key(), digest));
        draft.delete(keys::damaged(digest));
        draft.delete(keys::suspect(digest));
    }
    Ok(())
}

/// Takes an extent off the live bytes of its segment.
fn release(draft: &mut Draft<'_>, extent: &Extent) -> Result<()> {
    let record = RecordPlaces::of(extent).map_or(0, |places| places.occupied_bytes());
    draft.changes.shrunk.push(extent.segment);
    adjust(draft, extent.segment, |used| {
        used.live_bytes = used.live_bytes.saturating_sub(extent.length);
        used.live_blobs = used.live_blobs.saturating_sub(1);
        used.record_bytes = used.record_bytes.saturating_sub(record);
    })
}

fn reserve_segments(draft: &mut Draft<'_>, limit: SegmentId) {
    draft.changes.segment_limit = draft.changes.segment_limit.max(limit);
}

fn mark_damaged(
    draft: &mut Draft<'_>,
    digest: &Digest,
    extent: Extent,
    proof: Proof,
) -> Result<()> {
    if slot(draft, digest)?.is_some_and(|slot| slot.extent == extent) {
        let place = DamagedPlace { extent, proof };
        draft.put(keys::damaged(digest), place.encode());
    }
    Ok(())
}

fn mark_whole(draft: &mut Draft<'_>, digest: &Digest, extent: &Extent) -> Result<()> {
    // A mark belongs to the place in which the blob is now.
    if slot(draft, digest)?.is_some_and(|slot| slot.extent == *extent) {
        draft.delete(keys::damaged(digest));
    }
    Ok(())
}

/// Returns the index row of a digest.
pub(super) fn slot(draft: &Draft<'_>, digest: &Digest) -> Result<Option<Slot>> {
    let key = keys::blob(draft.hash_key(), digest);
    let value = draft.get(&key)?;
    let slot = value.map(|value| Slot::decode(&value));
    slot.transpose().map_err(|what| Error::bad_row(&key, &what))
}

fn adjust(
    draft: &mut Draft<'_>,
    segment: SegmentId,
    change: impl FnOnce(&mut SegmentUse),
) -> Result<()> {
    let key = keys::segment(segment);
    let mut used = match draft.get(&key)? {
        None => SegmentUse::default(),
        Some(value) => SegmentUse::decode(&value).map_err(|what| Error::bad_row(&key, &what))?,
    };
    change(&mut used);
    if used.live_blobs == 0 {
        draft.delete(key);
    } else {
        draft.put(key, used.encode());
    }
    Ok(())
}
