//! Typed reads at one LSN.
//!
//! Owns: [`View`] and [`Rows`]. Refuses: changing anything. Reads that return at once fail with [`Error::NotResident`] where a row is in
//! no memory; [`View::read`] and [`Rows::next_resident`] wait for it.

use std::sync::Arc;

use bytes::Bytes;

use super::keys::{self, SegmentUse, Slot, TagValue};
use crate::digest::Digest;
use crate::entry::ManifestEntry;
use crate::error::{Error, Result};
use crate::extent::{Extent, Lsn, SegmentId};
use crate::format::codec::Malformed;
use crate::format::transaction::RepositoryId;
use crate::require::Require;
use crate::state::State;
use crate::table::{Scan, resident};

/// A snapshot of names, links, edges and placements. Cheap to clone, never changes.
#[derive(Debug, Clone)]
pub struct View {
    state: Arc<State>,
}

/// What the index knows of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// Bytes.
    pub length: u64,
    /// Where they are.
    pub extent: Extent,
    /// Transaction that placed them.
    pub generation: Lsn,
}

/// A tag with what it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagInfo {
    /// The tag.
    pub tag: String,
    /// The manifest.
    pub digest: Digest,
    /// When it was set, Unix ms.
    pub unix_ms: u64,
}

/// Decodes a row's value.
pub(super) fn row<T>(key: &[u8], decoded: std::result::Result<T, Malformed>) -> Result<T> {
    decoded.map_err(|what| Error::bad_row(key, &what))
}

/// Rows of one kind in order, read as they are asked for, of the snapshot that they were asked of.
#[derive(Debug)]
pub struct Rows<T> {
    scan: Scan,
    prefix: Bytes,
    decode: Decode<T>,
}

/// What a row says, from its key, its value and the prefix of its kind.
type Decode<T> = fn(&[u8], &[u8], &[u8]) -> std::result::Result<T, Malformed>;

impl<T> Rows<T> {
    /// The next one, waiting for the disk where that is needed.
    pub async fn next_resident(&mut self) -> Result<Option<T>> {
        let found = self.scan.next_resident().await?;
        found.map(|found| self.decode(&found)).transpose()
    }

    fn decode(&self, (key, value): &(Bytes, Bytes)) -> Result<T> {
        row(key, (self.decode)(key, value, &self.prefix))
    }
}

impl<T> Iterator for Rows<T> {
    type Item = Result<T>;

    /// The next one; [`Error::NotResident`] if that needs the disk, and then the same one again.
    fn next(&mut self) -> Option<Self::Item> {
        let found = self.scan.next()?;
        Some(found.and_then(|found| self.decode(&found)))
    }
}

impl View {
    /// The snapshot `state`.
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// Calls `read` until all rows that it needs are in memory. It must read the same rows each time.
    pub async fn read<T>(&self, mut read: impl FnMut(&Self) -> Result<T>) -> Result<T> {
        resident(|| read(self)).await
    }

    /// The last transaction seen.
    pub fn lsn(&self) -> Lsn {
        self.state.lsn
    }

    /// The id of a repository.
    pub fn repository(&self, name: &str) -> Result<Option<RepositoryId>> {
        let key = keys::repository_by_name(name);
        self.state
            .get(&key)?
            .map(|value| row(&key, keys::decode_id(&value)))
            .transpose()
    }

    /// Whether a repository exists.
    pub fn repository_exists(&self, name: &str) -> Result<bool> {
        Ok(self.repository(name)?.is_some())
    }

    /// Names of repositories in ASCII order, behind `after`, at most `limit`.
    pub fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        let prefix = keys::repositories();
        let after = after.map(keys::repository_by_name);
        self.collect(&prefix, after.as_deref(), limit, |key, _| {
            keys::text_behind(key, &prefix)
        })
    }

    /// How many repositories there are; walks their names.
    pub async fn repository_count(&self) -> Result<u64> {
        let mut names = self.state.scan_prefix(&keys::repositories(), None);
        let mut count = 0;
        while names.next_resident().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// What a tag points at.
    pub fn tag(&self, repository: &str, tag: &str) -> Result<Option<TagInfo>> {
        let Some(id) = self.repository(repository)? else {
            return Ok(None);
        };
        let key = keys::tag(id, tag);
        let Some(value) = self.state.get(&key)? else {
            return Ok(None);
        };
        let value = row(&key, TagValue::decode(&value))?;
        if !self.counts(id, &value)? {
            return Ok(None);
        }
        Ok(Some(TagInfo {
            tag: tag.to_owned(),
            digest: value.digest,
            unix_ms: value.unix_ms,
        }))
    }

    /// Tags of a repository in ASCII order, behind `after`, at most `limit`; none if there is no such repository.
    pub fn tags(
        &self,
        repository: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TagInfo>> {
        let Some(id) = self.repository(repository)? else {
            return Ok(Vec::new());
        };
        let prefix = keys::tags(id);
        let after = after.map(|tag| keys::tag(id, tag));
        let mut found = Vec::new();
        for entry in self.state.scan_prefix(&prefix, after.as_deref()) {
            if found.len() == limit {
                break;
            }
            let (key, value) = entry?;
            let value = row(&key, TagValue::decode(&value))?;
            if self.counts(id, &value)? {
                found.push(TagInfo {
                    tag: row(&key, keys::text_behind(&key, &prefix))?,
                    digest: value.digest,
                    unix_ms: value.unix_ms,
                });
            }
        }
        Ok(found)
    }

    /// What a tag's row points at, whether or not the tag counts: see [`super::retired`].
    pub(crate) fn tag_row(&self, id: RepositoryId, tag: &str) -> Result<Option<TagValue>> {
        let key = keys::tag(id, tag);
        let value = self.state.get(&key)?;
        value
            .map(|value| row(&key, TagValue::decode(&value)))
            .transpose()
    }

    /// Rows of tags that point at a manifest, whether or not they count, at most `limit`.
    pub fn tags_of(
        &self,
        repository: RepositoryId,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<String>> {
        let prefix = keys::tagged_prefix(repository, digest);
        self.collect(&prefix, None, limit, |key, _| {
            keys::text_behind(key, &prefix)
        })
    }

    /// A manifest of a repository, without its children: see [`View::children`].
    pub fn manifest(&self, repository: &str, digest: &Digest) -> Result<Option<ManifestEntry>> {
        let Some(id) = self.repository(repository)? else {
            return Ok(None);
        };
        let key = keys::manifest(id, digest);
        self.state
            .get(&key)?
            .map(|value| row(&key, keys::decode_manifest(*digest, &value)))
            .transpose()
    }

    /// Digests of a repository's manifests in key order, behind `after`, at most `limit`.
    pub fn manifests(
        &self,
        repository: &str,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<ManifestEntry>> {
        let Some(id) = self.repository(repository)? else {
            return Ok(Vec::new());
        };
        let prefix = keys::manifests(id);
        let after = after.map(|digest| keys::manifest(id, digest));
        self.collect(&prefix, after.as_deref(), limit, |key, value| {
            keys::decode_manifest(keys::digest_behind(key, &prefix)?, value)
        })
    }

    /// What a manifest keeps alive.
    pub fn children(&self, repository: &str, digest: &Digest) -> Result<Vec<Digest>> {
        let Some(id) = self.repository(repository)? else {
            return Ok(Vec::new());
        };
        let prefix = keys::children(id, digest);
        self.collect(&prefix, None, usize::MAX, |key, _| {
            keys::digest_behind(key, &prefix)
        })
    }

    /// Whether a blob is visible in a repository.
    pub fn linked(&self, repository: &str, digest: &Digest) -> Result<bool> {
        let Some(id) = self.repository(repository)? else {
            return Ok(false);
        };
        Ok(self.state.get(&keys::link(id, digest))?.is_some())
    }

    /// Blobs visible in a repository, in key order, behind `after`, at most `limit`.
    pub fn links(
        &self,
        repository: &str,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>> {
        let Some(id) = self.repository(repository)? else {
            return Ok(Vec::new());
        };
        let prefix = keys::links(id);
        let after = after.map(|digest| keys::link(id, digest));
        self.collect(&prefix, after.as_deref(), limit, |key, _| {
            keys::digest_behind(key, &prefix)
        })
    }

    /// Names of repositories in which a blob is visible, in the order of their creation, at most `limit`.
    pub fn holders(&self, digest: &Digest, limit: usize) -> Result<Vec<String>> {
        let prefix = keys::holders(digest);
        let ids = self.collect(&prefix, None, limit, |key, _| {
            keys::number_behind(key, &prefix).map(RepositoryId)
        })?;
        let mut names = Vec::with_capacity(ids.len());
        for id in ids {
            names.extend(self.repository_name(id)?);
        }
        Ok(names)
    }

    /// The name of a repository.
    pub fn repository_name(&self, id: RepositoryId) -> Result<Option<String>> {
        let key = keys::repository_by_id(id);
        self.state
            .get(&key)?
            .map(|value| row(&key, keys::text_behind(&value, &[])))
            .transpose()
    }

    /// Manifests that name `subject` as theirs, in key order, behind `after`, at most `limit`.
    pub fn referrers(
        &self,
        repository: &str,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>> {
        let Some(id) = self.repository(repository)? else {
            return Ok(Vec::new());
        };
        let prefix = keys::referrers(id, subject);
        let after = after.map(|referrer| keys::referrer(id, subject, referrer));
        self.collect(&prefix, after.as_deref(), limit, |key, _| {
            keys::digest_behind(key, &prefix)
        })
    }

    /// The same with what is kept of each.
    pub fn referring(
        &self,
        repository: &str,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<ManifestEntry>> {
        let Some(id) = self.repository(repository)? else {
            return Ok(Vec::new());
        };
        let prefix = keys::referrers(id, subject);
        let after = after.map(|referrer| keys::referrer(id, subject, referrer));
        let mut found = Vec::new();
        for referrer in self.state.scan_prefix(&prefix, after.as_deref()) {
            let (key, _) = referrer?;
            let digest = row(&key, keys::digest_behind(&key, &prefix))?;
            let key = keys::manifest(id, &digest);
            if let Some(value) = self.state.get(&key)? {
                found.push(row(&key, keys::decode_manifest(digest, &value))?);
            }
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    /// Whether the reverse of a link is there.
    pub(crate) fn is_holder(&self, digest: &Digest, repository: &str) -> Result<bool> {
        self.has(repository, |id| keys::holder(digest, id))
    }

    /// Whether the reverse of an edge is there.
    pub(crate) fn is_parent(
        &self,
        child: &Digest,
        repository: &str,
        parent: &Digest,
    ) -> Result<bool> {
        self.has(repository, |id| keys::parent(child, id, parent))
    }

    /// Whether a manifest is listed as a referrer.
    pub(crate) fn is_referrer(
        &self,
        repository: &str,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<bool> {
        self.has(repository, |id| keys::referrer(id, subject, referrer))
    }

    /// Whether the reverse of a tag is there.
    pub(crate) fn is_tagged(&self, repository: &str, digest: &Digest, tag: &str) -> Result<bool> {
        self.has(repository, |id| keys::tagged(id, digest, tag))
    }

    fn has(&self, repository: &str, key: impl FnOnce(RepositoryId) -> Bytes) -> Result<bool> {
        match self.repository(repository)? {
            None => Ok(false),
            Some(id) => Ok(self.state.get(&key(id))?.is_some()),
        }
    }

    /// Where a blob is; says nothing of who may see it.
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

    /// Blobs that were found damaged where they are, and where that is.
    pub fn damaged(&self) -> Rows<(Digest, Extent)> {
        self.rows(&keys::all_damaged(), |key, value, prefix| {
            Ok((
                keys::digest_behind(key, prefix)?,
                keys::decode_place(value)?,
            ))
        })
    }

    /// Whether a manifest of any repository keeps a digest alive: then it needs no lease. Links do not count: they give
    /// visibility, not life.
    pub fn referenced(&self, digest: &Digest) -> Result<bool> {
        Ok(self
            .state
            .scan_prefix(&keys::parents(digest), None)
            .next()
            .transpose()?
            .is_some())
    }

    /// Segments with what lives in them, in the order of their ids.
    pub fn segments(&self) -> Rows<(SegmentId, SegmentUse)> {
        self.rows(&keys::segments(), |key, value, prefix| {
            let id = keys::number_behind(key, prefix)?;
            Ok((SegmentId(id), SegmentUse::decode(value)?))
        })
    }

    /// Every index row, key and slot, in the order of the keyed hash.
    pub fn slots(&self) -> Rows<(Bytes, Slot)> {
        self.rows(&keys::blobs(), |key, value, _| {
            Ok((Bytes::copy_from_slice(key), Slot::decode(value)?))
        })
    }

    fn rows<T>(&self, prefix: &Bytes, decode: Decode<T>) -> Rows<T> {
        Rows {
            scan: self.state.scan_prefix(prefix, None),
            prefix: prefix.clone(),
            decode,
        }
    }

    /// Whether `key` is the index row of `digest`.
    pub fn is_slot_of(&self, key: &[u8], digest: &Digest) -> bool {
        keys::blob(&self.state.hash_key, digest) == key
    }

    /// The rows themselves, for checks that compare them with each other.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Whether a precondition of a batch on `repository` holds here.
    pub fn holds(&self, repository: &str, require: &Require) -> Result<bool> {
        Ok(match require {
            Require::Repository => self.repository_exists(repository)?,
            Require::Linked(digest) => self.linked(repository, digest)?,
            Require::LinkedIn { repository, digest } => self.linked(repository, digest)?,
            Require::Manifest(digest) => self.manifest(repository, digest)?.is_some(),
            Require::Attributes { digest, attributes } => self
                .manifest(repository, digest)?
                .is_none_or(|known| known.attributes == *attributes),
            Require::Tag { tag, digest } => {
                self.tag(repository, tag)?.map(|found| found.digest) == *digest
            }
            Require::TagExists(tag) => self.tag(repository, tag)?.is_some(),
            Require::Stored(digest) => self.blob(digest)?.is_some(),
        })
    }

    fn collect<T>(
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
