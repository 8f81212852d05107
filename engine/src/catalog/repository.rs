//! Typed reads of one repository.
//!
//! Owns: [`Repository`], a name that was looked up once. Refuses: changing anything; waiting, as [`View`]'s reads.

use bytes::Bytes;

use super::view::{BlobInfo, TagInfo, View, row};
use crate::digest::Digest;
use crate::error::Result;
use crate::format::keys::{self, TagValue};
use crate::format::transaction::RepositoryId;
use crate::vocabulary::{ManifestEntry, Require};

/// A repository in one snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Repository<'a> {
    view: &'a View,
    id: RepositoryId,
}

impl<'a> Repository<'a> {
    /// The repository of that id in `view`, where a name led to it.
    pub fn new(view: &'a View, id: RepositoryId) -> Self {
        Self { view, id }
    }

    /// Its id, which no other repository ever has.
    pub fn id(&self) -> RepositoryId {
        self.id
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.view.state().get(key)
    }

    fn has(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// What a tag points at.
    pub fn tag(&self, tag: &str) -> Result<Option<TagInfo>> {
        let found = self.tag_row(tag)?;
        let Some(value) = found else {
            return Ok(None);
        };
        if !self.view.counts(self.id, &value)? {
            return Ok(None);
        }
        Ok(Some(TagInfo {
            tag: tag.to_owned(),
            digest: value.digest,
            unix_ms: value.unix_ms,
        }))
    }

    /// Tags in ASCII order after `after`, at most `limit`.
    pub fn tags(&self, after: Option<&str>, limit: usize) -> Result<Vec<TagInfo>> {
        let prefix = keys::tags(self.id);
        let after = after.map(|tag| keys::tag(self.id, tag));
        let mut found = Vec::new();
        for entry in self.view.state().scan_prefix(&prefix, after.as_deref()) {
            if found.len() == limit {
                break;
            }
            let (key, value) = entry?;
            let value = row(&key, TagValue::decode(&value))?;
            if self.view.counts(self.id, &value)? {
                found.push(TagInfo {
                    tag: row(&key, keys::text_after(&key, &prefix))?,
                    digest: value.digest,
                    unix_ms: value.unix_ms,
                });
            }
        }
        Ok(found)
    }

    /// What a tag's row points at, whether or not the tag counts: see [`super::retired`].
    pub(crate) fn tag_row(&self, tag: &str) -> Result<Option<TagValue>> {
        let key = keys::tag(self.id, tag);
        let value = self.get(&key)?;
        value
            .map(|value| row(&key, TagValue::decode(&value)))
            .transpose()
    }

    /// A manifest, without its children.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<ManifestEntry>> {
        let key = keys::manifest(self.id, digest);
        let value = self.get(&key)?;
        value
            .map(|value| row(&key, keys::decode_manifest(*digest, &value)))
            .transpose()
    }

    /// Manifests in the order of their keys after `after`, at most `limit`, without their children.
    pub fn manifests(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<ManifestEntry>> {
        let prefix = keys::manifests(self.id);
        let after = after.map(|digest| keys::manifest(self.id, digest));
        let decode = |key: &[u8], value: &Bytes| {
            keys::decode_manifest(keys::digest_after(key, &prefix)?, value)
        };
        self.view.collect(&prefix, after.as_deref(), limit, decode)
    }

    /// What a manifest keeps alive, at most `limit`.
    pub fn children(&self, digest: &Digest, limit: usize) -> Result<Vec<Digest>> {
        self.digests(&keys::children(self.id, digest), None, limit)
    }

    /// Whether a blob is visible here.
    pub fn is_linked(&self, digest: &Digest) -> Result<bool> {
        self.has(&keys::link(self.id, digest))
    }

    /// A blob that is visible here and stored.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        if self.is_linked(digest)? {
            self.view.blob(digest)
        } else {
            Ok(None)
        }
    }

    /// Blobs that are visible here, in the order of their keys after `after`, at most `limit`.
    pub fn links(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<Digest>> {
        let after = after.map(|digest| keys::link(self.id, digest));
        self.digests(&keys::links(self.id), after.as_deref(), limit)
    }

    /// Manifests that name `subject` as theirs, in the order of their keys after `after`, at most `limit`.
    pub fn referrers(
        &self,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>> {
        let after = after.map(|referrer| keys::referrer(self.id, subject, referrer));
        self.digests(&keys::referrers(self.id, subject), after.as_deref(), limit)
    }

    /// The same with what is kept of each.
    pub fn referring(
        &self,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<ManifestEntry>> {
        let prefix = keys::referrers(self.id, subject);
        let after = after.map(|referrer| keys::referrer(self.id, subject, referrer));
        let mut found = Vec::new();
        for referrer in self.view.state().scan_prefix(&prefix, after.as_deref()) {
            let (key, _) = referrer?;
            let digest = row(&key, keys::digest_after(&key, &prefix))?;
            found.extend(self.manifest(&digest)?);
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    fn digests(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Digest>> {
        let decode = |key: &[u8], _: &Bytes| keys::digest_after(key, prefix);
        self.view.collect(prefix, after, limit, decode)
    }

    /// Rows of tags that point at a manifest, whether or not they count, at most `limit`.
    pub(crate) fn tags_of(&self, digest: &Digest, limit: usize) -> Result<Vec<String>> {
        let prefix = keys::tagged_prefix(self.id, digest);
        let decode = |key: &[u8], _: &Bytes| keys::text_after(key, &prefix);
        self.view.collect(&prefix, None, limit, decode)
    }

    /// Whether a manifest is here.
    pub(crate) fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        self.has(&keys::manifest(self.id, digest))
    }

    /// Whether a precondition that speaks of this repository holds.
    pub(super) fn holds(&self, require: &Require) -> Result<bool> {
        Ok(match require {
            Require::Repository => true,
            Require::Stored(digest) => self.view.blob(digest)?.is_some(),
            Require::Linked(digest) | Require::LinkedIn { digest, .. } => self.is_linked(digest)?,
            Require::Manifest(digest) => self.has_manifest(digest)?,
            Require::Attributes { digest, attributes } => self
                .manifest(digest)?
                .is_none_or(|known| known.attributes == *attributes),
            Require::Tag { tag, digest } => self.tag(tag)?.map(|found| found.digest) == *digest,
            Require::TagExists(tag) => self.tag(tag)?.is_some(),
        })
    }

    /// Whether the reverse of a link is there.
    pub(crate) fn is_holder_of(&self, digest: &Digest) -> Result<bool> {
        self.has(&keys::holder(digest, self.id))
    }

    /// Whether the reverse of an edge is there.
    pub(crate) fn is_parent(&self, child: &Digest, parent: &Digest) -> Result<bool> {
        self.has(&keys::parent(child, self.id, parent))
    }

    /// Whether a manifest is listed as a referrer.
    pub(crate) fn is_referrer(&self, subject: &Digest, referrer: &Digest) -> Result<bool> {
        self.has(&keys::referrer(self.id, subject, referrer))
    }

    /// Whether the reverse of a tag is there.
    pub(crate) fn is_tagged(&self, digest: &Digest, tag: &str) -> Result<bool> {
        self.has(&keys::tagged(self.id, digest, tag))
    }
}
