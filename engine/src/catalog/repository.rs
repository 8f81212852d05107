//! Typed reads of one repository.
//!
//! Owns: [`Repository`], a name that was looked up once. Refuses: changes, and waiting, as do the reads of [`View`].

use bytes::Bytes;

use super::view::{BlobInfo, TagInfo, View, row};
use crate::digest::Digest;
use crate::error::Result;
use crate::format::keys::{self, TagValue};
use crate::format::transaction::RepositoryId;
use crate::options::UntaggedPolicy;
use crate::vocabulary::{ManifestEntry, Require};

/// A repository in one snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Repository<'a> {
    view: &'a View,
    id: RepositoryId,
}

impl<'a> Repository<'a> {
    /// Creates the repository of that id in `view`, after its name was looked up.
    pub fn new(view: &'a View, id: RepositoryId) -> Self {
        Self { view, id }
    }

    /// Returns the view in which it was looked up.
    pub(super) fn view(&self) -> &'a View {
        self.view
    }

    /// Returns its id, which no other repository ever has.
    pub fn id(&self) -> RepositoryId {
        self.id
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.view.state().get(key)
    }

    fn has(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// Returns the manifest that a tag points at, and when it was set.
    pub fn tag(&self, tag: &str) -> Result<Option<TagInfo>> {
        let found = self.tag_row(tag)?;
        let Some(value) = found else {
            return Ok(None);
        };
        if !self.view.is_live_tag(self.id, &value)? {
            return Ok(None);
        }
        Ok(Some(TagInfo {
            tag: tag.to_owned(),
            digest: value.digest,
            unix_ms: value.unix_ms,
        }))
    }

    /// Lists at most `limit` tags after `after`, in ASCII order.
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
            if self.view.is_live_tag(self.id, &value)? {
                found.push(TagInfo {
                    tag: row(&key, keys::text_after(&key, &prefix))?,
                    digest: value.digest,
                    unix_ms: value.unix_ms,
                });
            }
        }
        Ok(found)
    }

    /// Reads a tag's row, whether or not the tag counts: see [`super::retired`].
    pub(crate) fn tag_row(&self, tag: &str) -> Result<Option<TagValue>> {
        let key = keys::tag(self.id, tag);
        let value = self.get(&key)?;
        value
            .map(|value| row(&key, TagValue::decode(&value)))
            .transpose()
    }

    /// Reads a manifest's entry, without its children.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<ManifestEntry>> {
        let key = keys::manifest(self.id, digest);
        let value = self.get(&key)?;
        value
            .map(|value| row(&key, keys::decode_manifest(*digest, &value)))
            .transpose()
    }

    /// Lists at most `limit` manifests after `after`, in the order of their keys, without their children.
    pub fn manifests(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<ManifestEntry>> {
        let prefix = keys::manifests(self.id);
        let after = after.map(|digest| keys::manifest(self.id, digest));
        let decode = |key: &[u8], value: &Bytes| {
            keys::decode_manifest(keys::digest_after(key, &prefix)?, value)
        };
        self.view.collect(&prefix, after.as_deref(), limit, decode)
    }

    /// Lists at most `limit` digests that a manifest keeps alive.
    pub fn children(&self, digest: &Digest, limit: usize) -> Result<Vec<Digest>> {
        self.digests(&keys::children(self.id, digest), None, limit)
    }

    /// Returns whether a blob is visible here.
    pub fn is_linked(&self, digest: &Digest) -> Result<bool> {
        self.has(&keys::link(self.id, digest))
    }

    /// Returns a blob that is visible here and stored.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        if self.is_linked(digest)? {
            self.view.blob(digest)
        } else {
            Ok(None)
        }
    }

    /// Returns whether nothing but a lease protects a digest, whichever repository has it; see [`View::needs_lease`].
    pub fn needs_lease(&self, digest: &Digest) -> Result<bool> {
        self.view.needs_lease(digest)
    }

    /// Lists at most `limit` blobs that are visible here, after `after`, in the order of their keys.
    pub fn links(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<Digest>> {
        let after = after.map(|digest| keys::link(self.id, digest));
        self.digests(&keys::links(self.id), after.as_deref(), limit)
    }

    /// Lists at most `limit` manifests after `after` whose subject is `subject`, in the order of their keys.
    pub fn referrers(
        &self,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>> {
        let after = after.map(|referrer| keys::referrer(self.id, subject, referrer));
        self.digests(&keys::referrers(self.id, subject), after.as_deref(), limit)
    }

    /// Lists the same manifests with their entries.
    pub fn referrer_entries(
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

    /// Lists at most `limit` tags whose rows point at a manifest, whether or not they count.
    pub(crate) fn tags_of(&self, digest: &Digest, limit: usize) -> Result<Vec<String>> {
        let prefix = keys::tagged_prefix(self.id, digest);
        let decode = |key: &[u8], _: &Bytes| keys::text_after(key, &prefix);
        self.view.collect(&prefix, None, limit, decode)
    }

    /// Lists tags that point at a manifest, in ASCII order. At most `limit` rows are read; while rows of a deleted
    /// manifest are removed, some of them are no tags.
    pub fn tags_at(&self, digest: &Digest, limit: usize) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for tag in self.tags_of(digest, limit)? {
            if self.tag(&tag)?.is_some() {
                found.push(tag);
            }
        }
        Ok(found)
    }

    /// Returns whether a tag points at a manifest. Tags that do not count are passed over.
    pub(crate) fn has_live_tag(&self, digest: &Digest) -> Result<bool> {
        let prefix = keys::tagged_prefix(self.id, digest);
        for found in self.view.state().scan_prefix(&prefix, None) {
            let (key, _) = found?;
            if self
                .tag(&row(&key, keys::text_after(&key, &prefix))?)?
                .is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether rows of a deleted manifest with this digest may remain.
    pub(crate) fn has_mark(&self, digest: &Digest) -> Result<bool> {
        Ok(self.view.retired_at(self.id, digest)?.is_some())
    }

    /// Returns whether a manifest follows a subject that was deleted.
    pub(crate) fn is_follower(&self, digest: &Digest) -> Result<bool> {
        self.has(&keys::follower(self.id, digest))
    }

    /// Returns whether only a lease protects a manifest that is here. What is no suspect is kept; if it loses the last
    /// that keeps it, its grace starts then.
    pub fn manifest_needs_lease(&self, digest: &Digest, policy: &UntaggedPolicy) -> Result<bool> {
        let may_be_removed =
            self.is_follower(digest)? || self.is_removed_untagged(digest, policy)?;
        // The tags of a manifest that was deleted and put again may be very many that no longer count.
        Ok(may_be_removed && (self.has_mark(digest)? || !self.has_live_tag(digest)?))
    }

    fn is_removed_untagged(&self, digest: &Digest, policy: &UntaggedPolicy) -> Result<bool> {
        if policy.keeps_all() || !self.has(&keys::untagged(self.id, digest))? {
            return Ok(false);
        }
        let name = self.view.repository_name(self.id)?;
        Ok(name.is_some_and(|name| policy.removes_after(&name).is_some()))
    }

    /// Returns whether a manifest is here.
    pub(crate) fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        self.has(&keys::manifest(self.id, digest))
    }

    /// Returns whether a precondition about this repository holds.
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

    /// Returns whether the reverse of a link is there.
    pub(crate) fn is_holder_of(&self, digest: &Digest) -> Result<bool> {
        self.has(&keys::holder(digest, self.id))
    }

    /// Returns whether the reverse of a manifest is there.
    pub(crate) fn is_manifest_holder(&self, digest: &Digest) -> Result<bool> {
        self.has(&keys::manifest_holder(digest, self.id))
    }

    /// Returns whether the reverse of an edge is there.
    pub(crate) fn is_parent(&self, child: &Digest, parent: &Digest) -> Result<bool> {
        self.has(&keys::parent(child, self.id, parent))
    }

    /// Returns whether a manifest is listed as a referrer.
    pub(crate) fn is_referrer(&self, subject: &Digest, referrer: &Digest) -> Result<bool> {
        self.has(&keys::referrer(self.id, subject, referrer))
    }

    /// Returns whether the reverse of a tag is there.
    pub(crate) fn is_tagged(&self, digest: &Digest, tag: &str) -> Result<bool> {
        self.has(&keys::tagged(self.id, digest, tag))
    }
}
