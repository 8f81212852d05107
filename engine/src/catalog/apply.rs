//! Which rows an operation changes.
//!
//! Owns: the meaning of every operation, the same at commit and at replay.
//! Refuses: judging; an operation in the journal was right when it was written. Applying one twice, or one whose effect is
//! already there, changes nothing.

use bytes::Bytes;

use super::keys::{self, SegmentUse, Slot, TagValue};
use crate::digest::Digest;
use crate::entry::ManifestEntry;
use crate::error::{Error, Result};
use crate::extent::{Extent, SegmentId};
use crate::format::record::RecordPlaces;
use crate::format::transaction::{Operation, RepositoryId, Transaction};
use crate::state::State;

/// Applies a transaction, which becomes the state's last.
pub fn transaction(state: &mut State, transaction: &Transaction) -> Result<()> {
    for change in &transaction.operations {
        operation(state, change, transaction)?;
    }
    state.lsn = transaction.lsn;
    Ok(())
}

fn operation(state: &mut State, operation: &Operation, within: &Transaction) -> Result<()> {
    match operation {
        Operation::CreateRepository { id, name } => {
            state.put(keys::repository_by_name(name), keys::encode_id(*id));
            state.put(
                keys::repository_by_id(*id),
                Bytes::copy_from_slice(name.as_bytes()),
            );
            state.next_repository = state.next_repository.max(id.0 + 1);
        }
        Operation::Link { repository, digest } => {
            state.put(keys::link(*repository, digest), Bytes::new());
            state.put(keys::holder(digest, *repository), Bytes::new());
        }
        Operation::Unlink { repository, digest } => {
            state.delete(keys::link(*repository, digest));
            state.delete(keys::holder(digest, *repository));
        }
        Operation::PutManifest { repository, entry } => put_manifest(state, *repository, entry)?,
        Operation::DeleteManifest { repository, digest } => {
            delete_manifest(state, *repository, digest)?;
        }
        Operation::SetTag {
            repository,
            tag,
            digest,
            old,
        } => {
            let value = TagValue {
                digest: *digest,
                lsn: within.lsn,
                unix_ms: within.unix_ms,
            };
            set_tag(state, *repository, tag, value, old.as_ref());
        }
        Operation::DeleteTag {
            repository,
            tag,
            old,
        } => {
            state.delete(keys::tag(*repository, tag));
            state.delete(keys::tagged(*repository, old, tag));
        }
        Operation::DeleteRepository { id, name } => {
            state.delete(keys::repository_by_name(name));
            state.delete(keys::repository_by_id(*id));
            state.put(keys::deleted(*id), Bytes::copy_from_slice(name.as_bytes()));
        }
        Operation::RetireManifest { repository, digest } => {
            retire_manifest(state, *repository, digest, within)?;
        }
        Operation::DropEdges {
            repository,
            digest,
            children,
        } => {
            for child in children {
                drop_edge(state, *repository, digest, child);
            }
        }
        Operation::ForgetManifest { repository, digest } => {
            forget_manifest(state, *repository, digest)?;
        }
        Operation::ForgetRepository { id } => state.delete(keys::deleted(*id)),
        Operation::PlaceBlob { digest, extent } => place(state, digest, *extent, within)?,
        Operation::ReserveSegmentIds { limit } => reserve_segments(state, *limit),
        Operation::MarkDamaged { digest, extent } => mark_damaged(state, digest, extent)?,
        Operation::MarkWhole { digest, extent } => mark_whole(state, digest, extent)?,
    }
    Ok(())
}

fn set_tag(
    state: &mut State,
    repository: RepositoryId,
    tag: &str,
    value: TagValue,
    old: Option<&Digest>,
) {
    if let Some(old) = old {
        state.delete(keys::tagged(repository, old, tag));
    }
    state.put(keys::tag(repository, tag), value.encode());
    state.put(keys::tagged(repository, &value.digest, tag), Bytes::new());
}

fn forget_manifest(state: &mut State, repository: RepositoryId, digest: &Digest) -> Result<()> {
    let key = keys::retired(repository, digest);
    if state.get(&key)?.is_some() {
        state.retired = state.retired.saturating_sub(1);
        state.delete(key);
    }
    Ok(())
}

fn drop_edge(state: &mut State, repository: RepositoryId, digest: &Digest, child: &Digest) {
    state.delete(keys::child(repository, digest, child));
    state.delete(keys::parent(child, repository, digest));
}

fn put_manifest(state: &mut State, repository: RepositoryId, entry: &ManifestEntry) -> Result<()> {
    // The bytes of a digest never change, but what we keep of them may: an upgrade can learn new edges.
    delete_manifest(state, repository, &entry.digest)?;
    if state.retired > 0 {
        // Put again before the last of its edges went.
        drop_edges(state, repository, &entry.digest)?;
    }
    state.put(
        keys::manifest(repository, &entry.digest),
        keys::encode_manifest(entry),
    );
    for child in &entry.children {
        state.put(keys::child(repository, &entry.digest, child), Bytes::new());
        state.put(keys::parent(child, repository, &entry.digest), Bytes::new());
    }
    if let Some(subject) = &entry.subject {
        state.put(
            keys::referrer(repository, subject, &entry.digest),
            Bytes::new(),
        );
    }
    Ok(())
}

fn delete_manifest(state: &mut State, repository: RepositoryId, digest: &Digest) -> Result<()> {
    let key = keys::manifest(repository, digest);
    let Some(value) = state.get(&key)? else {
        return Ok(());
    };
    let entry =
        keys::decode_manifest(*digest, &value).map_err(|what| Error::bad_row(&key, &what))?;
    drop_edges(state, repository, digest)?;
    if let Some(subject) = &entry.subject {
        state.delete(keys::referrer(repository, subject, digest));
    }
    state.delete(key);
    Ok(())
}

/// Takes a manifest out of sight, and leaves its tags and edges where they are.
fn retire_manifest(
    state: &mut State,
    repository: RepositoryId,
    digest: &Digest,
    within: &Transaction,
) -> Result<()> {
    let key = keys::manifest(repository, digest);
    let Some(value) = state.get(&key)? else {
        return Ok(());
    };
    let entry =
        keys::decode_manifest(*digest, &value).map_err(|what| Error::bad_row(&key, &what))?;
    if let Some(subject) = &entry.subject {
        state.delete(keys::referrer(repository, subject, digest));
    }
    state.delete(key);
    let mark = keys::retired(repository, digest);
    if state.get(&mark)?.is_none() {
        state.retired = state.retired.saturating_add(1);
    }
    state.put(mark, keys::encode_lsn(within.lsn));
    Ok(())
}

fn drop_edges(state: &mut State, repository: RepositoryId, digest: &Digest) -> Result<()> {
    let prefix = keys::children(repository, digest);
    let edges = state
        .scan_prefix(&prefix, None)
        .collect::<Result<Vec<_>>>()?;
    for (edge, _) in edges {
        let child =
            keys::digest_behind(&edge, &prefix).map_err(|what| Error::bad_row(&edge, &what))?;
        state.delete(keys::parent(&child, repository, digest));
        state.delete(edge);
    }
    Ok(())
}

fn place(state: &mut State, digest: &Digest, extent: Extent, within: &Transaction) -> Result<()> {
    if let Some(old) = slot(state, digest)? {
        if old.extent == extent {
            return Ok(());
        }
        let mark = keys::damaged(digest);
        if state.get(&mark)?.is_some() {
            state.delete(mark);
        }
        adjust(state, old.extent.segment, |used| {
            used.live_bytes = used.live_bytes.saturating_sub(old.extent.length);
            used.live_blobs = used.live_blobs.saturating_sub(1);
        })?;
    }
    // An extent that no record can lie around is found at its first read.
    let end = RecordPlaces::of(&extent).map_or(0, |places| places.end);
    adjust(state, extent.segment, |used| {
        used.live_bytes = used.live_bytes.saturating_add(extent.length);
        used.live_blobs += 1;
        used.end = used.end.max(end);
    })?;
    state.put(
        keys::blob(&state.hash_key, digest),
        Slot {
            generation: within.lsn,
            extent,
        }
        .encode(),
    );
    Ok(())
}

fn reserve_segments(state: &mut State, limit: SegmentId) {
    state.segment_limit = state.segment_limit.max(limit);
}

fn mark_damaged(state: &mut State, digest: &Digest, extent: &Extent) -> Result<()> {
    if slot(state, digest)?.is_some_and(|slot| slot.extent == *extent) {
        state.put(keys::damaged(digest), keys::encode_place(extent));
    }
    Ok(())
}

fn mark_whole(state: &mut State, digest: &Digest, extent: &Extent) -> Result<()> {
    // A mark speaks of the place in which the blob is.
    if slot(state, digest)?.is_some_and(|slot| slot.extent == *extent) {
        state.delete(keys::damaged(digest));
    }
    Ok(())
}

fn slot(state: &State, digest: &Digest) -> Result<Option<Slot>> {
    let key = keys::blob(&state.hash_key, digest);
    let value = state.get(&key)?;
    let slot = value.map(|value| Slot::decode(&value));
    slot.transpose().map_err(|what| Error::bad_row(&key, &what))
}

fn adjust(
    state: &mut State,
    segment: SegmentId,
    change: impl FnOnce(&mut SegmentUse),
) -> Result<()> {
    let key = keys::segment(segment);
    let mut used = match state.get(&key)? {
        None => SegmentUse::default(),
        Some(value) => SegmentUse::decode(&value).map_err(|what| Error::bad_row(&key, &what))?,
    };
    change(&mut used);
    state.put(key, used.encode());
    Ok(())
}
