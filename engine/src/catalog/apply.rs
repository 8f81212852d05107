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
            if let Some(old) = old {
                state.delete(keys::tagged(*repository, old, tag));
            }
            let value = TagValue {
                digest: *digest,
                lsn: within.lsn,
                unix_ms: within.unix_ms,
            };
            state.put(keys::tag(*repository, tag), value.encode());
            state.put(keys::tagged(*repository, digest, tag), Bytes::new());
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
        Operation::ForgetRepository { id } => state.delete(keys::deleted(*id)),
        Operation::PlaceBlob { digest, extent } => place(state, digest, *extent, within)?,
        Operation::ReserveSegmentIds { limit } => {
            state.segment_limit = state.segment_limit.max(*limit);
        }
    }
    Ok(())
}

fn put_manifest(state: &mut State, repository: RepositoryId, entry: &ManifestEntry) -> Result<()> {
    // The bytes of a digest never change, but what we keep of them may: an upgrade can learn new edges.
    delete_manifest(state, repository, &entry.digest)?;
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
    if let Some(subject) = &entry.subject {
        state.delete(keys::referrer(repository, subject, digest));
    }
    state.delete(key);
    Ok(())
}

fn place(state: &mut State, digest: &Digest, extent: Extent, within: &Transaction) -> Result<()> {
    let key = keys::blob(&state.hash_key, digest);
    if let Some(value) = state.get(&key)? {
        let old = Slot::decode(&value).map_err(|what| Error::bad_row(&key, &what))?;
        if old.extent == extent {
            return Ok(());
        }
        adjust(state, old.extent.segment, |used| {
            used.live_bytes = used.live_bytes.saturating_sub(old.extent.length);
            used.live_blobs = used.live_blobs.saturating_sub(1);
        })?;
    }
    adjust(state, extent.segment, |used| {
        used.live_bytes = used.live_bytes.saturating_add(extent.length);
        used.live_blobs += 1;
    })?;
    state.put(
        key,
        Slot {
            generation: within.lsn,
            extent,
        }
        .encode(),
    );
    Ok(())
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
