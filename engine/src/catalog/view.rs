//! Typed reads at one LSN.
//!
//! Owns: [`View`] and [`Rows`]. Refuses: changes. A read that returns at once fails with [`Error::NotResident`] if a
//! row is not in memory; [`View::read`] and [`Rows::next_resident`] wait for it.

use std::sync::Arc;

use bytes::Bytes;

use super::repository::Repository;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Lsn, SegmentId};
use crate::format::codec::Malformed;
use crate::format::keys::{self, DamagedPlace, RepositoryUsage, SegmentUse, Slot, Suspect};
use crate::format::transaction::RepositoryId;
use crate::state::State;
use crate::table::{Scan, resident};
use crate::vocabulary::Require;

/// A snapshot of names, links, edges and placements. Cheap to clone, never changes.
#[derive(Debug, Clone)]
pub struct View {
    state: Arc<State>,
}

/// The index entry of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// Length in bytes.
    pub length: u64,
    /// Where its bytes are.
    pub extent: Extent,
    /// The transaction that placed them.
    pub generation: Lsn,
}

/// A tag with what it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagInfo {
    /// The tag.
    pub tag: String,
    /// The manifest.
    pub digest: Digest,
    /// When it was set, in Unix ms.
    pub unix_ms: u64,
}

/// Turns a malformed row into an error that names its key.
pub(super) fn row<T>(key: &[u8], decoded: std::result::Result<T, Malformed>) -> Result<T> {
    decoded.map_err(|what| Error::bad_row(key, &what))
}

/// Rows of one kind in key order, of one snapshot, read on demand.
#[derive(Debug)]
pub(crate) struct Rows<T> {
    scan: Scan,
    prefix: Bytes,
    decode: Decode<T>,
}

/// Decodes a row from its key, its value and the prefix of its kind.
type Decode<T> = fn(&[u8], &[u8], &[u8]) -> std::result::Result<T, Malformed>;

impl<T> Rows<T> {
    /// Returns the next row; waits for the disk where needed.
    pub(crate) async fn next_resident(&mut self) -> Result<Option<T>> {
        let found = self.scan.next_resident().await?;
        found.map(|found| self.decode(&found)).transpose()
    }

    fn decode(&self, (key, value): &(Bytes, Bytes)) -> Result<T> {
        row(key, (self.decode)(key, value, &self.prefix))
    }
}

impl<T> Iterator for Rows<T> {
    type Item = Result<T>;

    /// Returns the next row. On [`Error::NotResident`] the next call returns the same row.
    fn next(&mut self) -> Option<Self::Item> {
        let found = self.scan.next()?;
        Some(found.and_then(|found| self.decode(&found)))
    }
}

impl View {
    /// Creates a view of `state`.
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// Calls `read` until all rows that it needs are in memory. It must read the same rows each time.
    pub async fn read<T>(&self, mut read: impl FnMut(&Self) -> Result<T>) -> Result<T> {
        resident(|| read(self)).await
    }

    /// Returns the last transaction seen.
    pub fn lsn(&self) -> Lsn {
        self.state.lsn
    }

    /// Looks up the repository of that name, for any number of reads.
    pub fn repository(&self, name: &str) -> Result<Option<Repository<'_>>> {
        let key = keys::repository_by_name(name);
        let Some(value) = self.state.get(&key)? else {
            return Ok(None);
        };
        let id = row(&key, keys::decode_id(&value))?;
        Ok(Some(Repository::new(self, id)))
    }

    /// Lists at most `limit` names of repositories after `after`, in ASCII order.
    pub fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        let prefix = keys::repositories();
        let after = after.map(keys::repository_by_name);
        self.collect(&prefix, after.as_deref(), limit, |key, _| {
            keys::text_after(key, &prefix)
        })
    }

    /// Counts the repositories by scanning their names.
    pub(crate) async fn repository_count(&self) -> Result<u64> {
        let mut names = self.state.scan_prefix(&keys::repositories(), None);
        let mut count = 0;
        while names.next_resident().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Lists at most `limit` names of repositories in which a blob is visible, in the order of their creation.
    pub fn holders(&self, digest: &Digest, limit: usize) -> Result<Vec<String>> {
        let ids = self.holder_ids(digest, limit)?;
        let mut names = Vec::with_capacity(ids.len());
        for id in ids {
            names.extend(self.repository_name(id)?);
        }
        Ok(names)
    }

    /// Returns the name of a repository.
    pub(crate) fn repository_name(&self, id: RepositoryId) -> Result<Option<String>> {
        let key = keys::repository_by_id(id);
        self.state
            .get(&key)?
            .map(|value| row(&key, keys::text_after(&value, &[])))
            .transpose()
    }

    /// Returns where a blob is, whoever may see it.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        let key = keys::blob(&self.state.hash_key, digest);
        let Some(value) = self.state.get(&key)? else {
            return Ok(None);
        };
        let slot = row(&key, Slot::decode(&value))?;
        Ok(Some(BlobInfo {
            length: slot.extent.length,
            extent: slot.extent,
            generation: slot.generation,
        }))
    }

    /// Lists blobs that were found damaged, each with the place that is damaged.
    pub(crate) fn damaged(&self) -> Rows<(Digest, DamagedPlace)> {
        self.rows(&keys::all_damaged(), |key, value, prefix| {
            Ok((
                keys::digest_after(key, prefix)?,
                DamagedPlace::decode(value)?,
            ))
        })
    }

    /// Returns where a blob was found damaged.
    pub(crate) fn damage(&self, digest: &Digest) -> Result<Option<DamagedPlace>> {
        let key = keys::damaged(digest);
        let value = self.state.get(&key)?;
        value
            .map(|value| row(&key, DamagedPlace::decode(&value)))
            .transpose()
    }

    /// Returns whether nothing but a lease protects a digest: a suspect that nothing references. What is no suspect is
    /// referenced or not stored; if it loses its last reference later, its grace starts then.
    pub fn needs_lease(&self, digest: &Digest) -> Result<bool> {
        Ok(self.suspect(digest)?.is_some() && !self.referenced(digest)?)
    }

    /// Returns whether a digest is a manifest of any repository, or a child of one. Links do not count: they give
    /// visibility, not life.
    pub fn referenced(&self, digest: &Digest) -> Result<bool> {
        for prefix in [keys::parents(digest), keys::manifest_holders(digest)] {
            let first = self.state.scan_prefix(&prefix, None).next();
            if first.transpose()?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns since when nothing is known to reference a digest; `None` if it is no suspect.
    pub(crate) fn suspect(&self, digest: &Digest) -> Result<Option<Suspect>> {
        let key = keys::suspect(digest);
        let value = self.state.get(&key)?;
        value
            .map(|value| row(&key, Suspect::decode(&value)))
            .transpose()
    }

    /// Lists all suspects in the order of their digests.
    pub(crate) fn suspects(&self) -> Rows<(Digest, Suspect)> {
        self.rows(&keys::suspects(), |key, value, prefix| {
            Ok((keys::digest_after(key, prefix)?, Suspect::decode(value)?))
        })
    }

    /// Lists at most `limit` repositories that link a blob, whether or not they are deleted.
    pub(crate) fn holder_ids(&self, digest: &Digest, limit: usize) -> Result<Vec<RepositoryId>> {
        let prefix = keys::holders(digest);
        self.collect(&prefix, None, limit, |key, _| {
            keys::number_after(key, &prefix).map(RepositoryId)
        })
    }

    /// Lists the usage of repositories, deleted ones included, in the order of their ids.
    pub(crate) fn usages(&self) -> Rows<(RepositoryId, RepositoryUsage)> {
        self.rows(&keys::usages(), |key, value, prefix| {
            let id = keys::number_after(key, prefix)?;
            Ok((RepositoryId(id), RepositoryUsage::decode(value)?))
        })
    }

    /// Returns the use of a segment; `None` if it holds no live blob.
    pub(crate) fn segment(&self, id: SegmentId) -> Result<Option<SegmentUse>> {
        let key = keys::segment(id);
        let value = self.state.get(&key)?;
        value
            .map(|value| row(&key, SegmentUse::decode(&value)))
            .transpose()
    }

    /// Lists segments with their use, in the order of their ids.
    pub(crate) fn segments(&self) -> Rows<(SegmentId, SegmentUse)> {
        self.rows(&keys::segments(), |key, value, prefix| {
            let id = keys::number_after(key, prefix)?;
            Ok((SegmentId(id), SegmentUse::decode(value)?))
        })
    }

    /// Lists segments after `after` in the same way.
    pub(crate) fn segments_after(&self, after: Option<SegmentId>) -> Rows<(SegmentId, SegmentUse)> {
        let after = after.map(keys::segment);
        let mut rows = self.segments();
        rows.scan = self.state.scan_prefix(&keys::segments(), after.as_deref());
        rows
    }

    /// Lists every index row, key and slot, in the order of the keyed hash.
    pub(crate) fn slots(&self) -> Rows<(Bytes, Slot)> {
        self.rows(&keys::blobs(), |key, value, _| {
            Ok((Bytes::copy_from_slice(key), Slot::decode(value)?))
        })
    }

    pub(super) fn rows<T>(&self, prefix: &Bytes, decode: Decode<T>) -> Rows<T> {
        Rows {
            scan: self.state.scan_prefix(prefix, None),
            prefix: prefix.clone(),
            decode,
        }
    }

    /// Returns whether `key` is the index row of `digest`.
    pub(crate) fn is_slot_of(&self, key: &[u8], digest: &Digest) -> bool {
        keys::blob(&self.state.hash_key, digest) == key
    }

    /// Returns the rows themselves, for checks that compare them with each other.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Returns whether a precondition of a batch on `repository` holds. `repository` is `None` if there is none of that
    /// name.
    pub(crate) fn holds(
        &self,
        repository: Option<Repository<'_>>,
        require: &Require,
    ) -> Result<bool> {
        if let Require::Stored(digest) = require {
            return Ok(self.blob(digest)?.is_some());
        }
        let repository = if let Require::LinkedIn { repository, .. } = require {
            self.repository(repository)?
        } else {
            repository
        };
        let Some(repository) = repository else {
            // Without a repository, these hold.
            return Ok(matches!(
                require,
                Require::Tag { digest: None, .. } | Require::Attributes { .. }
            ));
        };
        repository.holds(require)
    }

    pub(super) fn collect<T>(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        mut decode: impl FnMut(&[u8], &Bytes) -> std::result::Result<T, Malformed>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for entry in self.state.scan_prefix(prefix, after).take(limit) {
            let (key, value) = entry?;
            found.push(row(&key, decode(&key, &value))?);
        }
        Ok(found)
    }
}
