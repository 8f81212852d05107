//! Row keys and values.
//!
//! Owns: the only code that knows how a row is spelled (FORMAT.md, "Rows"). Keys are big-endian where a number must sort.

use std::hash::Hasher as _;

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use super::codec::{Decoder, Encoder, Malformed};
use super::row::table as prefix;
use super::transaction::{RepositoryId, decode_extent, encode_extent};
use crate::digest::Digest;
use crate::extent::{Extent, Lsn, SegmentId};
use crate::vocabulary::ManifestEntry;

/// A key under construction.
struct Key(Vec<u8>);

impl Key {
    fn new(prefix: u8) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.push(prefix);
        Self(bytes)
    }

    #[expect(clippy::big_endian_bytes, reason = "keys sort as numbers do")]
    fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn digest(mut self, digest: &Digest) -> Self {
        self.0.push(digest.algorithm().code());
        self.0.extend_from_slice(digest.as_bytes());
        self
    }

    fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn done(self) -> Bytes {
        Bytes::from(self.0)
    }
}

/// Index row of a blob. The keyed hash in front spreads digests that clients chose.
#[expect(clippy::big_endian_bytes, reason = "keys sort as numbers do")]
pub fn blob(hash_key: &[u8; 16], digest: &Digest) -> Bytes {
    let key = digest.key();
    let mut hasher = SipHasher13::new_with_key(hash_key);
    hasher.write_u8(key.algorithm.code());
    hasher.write(&key.bytes);
    let mut bytes = Vec::with_capacity(42);
    bytes.push(prefix::BLOB);
    bytes.extend_from_slice(&hasher.finish().to_be_bytes());
    bytes.push(key.algorithm.code());
    bytes.extend_from_slice(&key.bytes);
    Bytes::from(bytes)
}

/// The digest of the blob of an index row, for messages; of one of 64 bytes the row has only a key.
pub fn name_of_blob(key: &[u8]) -> String {
    let digest = Decoder::new(key.get(9..).unwrap_or_default()).digest();
    digest.map_or_else(
        |_| format!("row {}", key.escape_ascii()),
        |digest| digest.to_string(),
    )
}

/// Repository by name.
pub fn repository_by_name(name: &str) -> Bytes {
    Key::new(prefix::REPOSITORY_BY_NAME).text(name).done()
}

/// Prefix of all repositories by name.
pub fn repositories() -> Bytes {
    Key::new(prefix::REPOSITORY_BY_NAME).done()
}

/// Repository by id.
pub fn repository_by_id(id: RepositoryId) -> Bytes {
    Key::new(prefix::REPOSITORY_BY_ID).number(id.0).done()
}

/// Deleted repository of which rows remain.
pub fn deleted(id: RepositoryId) -> Bytes {
    Key::new(prefix::DELETED).number(id.0).done()
}

/// Prefix of all deleted repositories of which rows remain.
pub fn all_deleted() -> Bytes {
    Key::new(prefix::DELETED).done()
}

/// Prefixes of the rows that go on with a repository's id.
pub const OWNED_PREFIXES: [u8; 7] = [
    prefix::LINK,
    prefix::MANIFEST,
    prefix::CHILD,
    prefix::REFERRER,
    prefix::TAG,
    prefix::TAGGED,
    prefix::RETIRED,
];

/// Prefix of a repository's rows of one table of [`OWNED_PREFIXES`].
pub fn owned(table: u8, id: RepositoryId) -> Bytes {
    Key::new(table).number(id.0).done()
}

/// The repository of a row of one of [`OWNED_PREFIXES`].
#[expect(clippy::big_endian_bytes, reason = "keys sort as numbers do")]
pub fn owner(key: &[u8]) -> Result<RepositoryId, Malformed> {
    let mut decoder = Decoder::new(key.get(1..).unwrap_or_default());
    Ok(RepositoryId(u64::from_be_bytes(decoder.array()?)))
}

/// Visibility of a blob in a repository.
pub fn link(repository: RepositoryId, digest: &Digest) -> Bytes {
    Key::new(prefix::LINK)
        .number(repository.0)
        .digest(digest)
        .done()
}

/// Prefix of all links of a repository.
pub fn links(repository: RepositoryId) -> Bytes {
    Key::new(prefix::LINK).number(repository.0).done()
}

/// Reverse of a link: a repository that holds a blob.
pub fn holder(digest: &Digest, repository: RepositoryId) -> Bytes {
    Key::new(prefix::HOLDER)
        .digest(digest)
        .number(repository.0)
        .done()
}

/// Prefix of all repositories that hold a blob.
pub fn holders(digest: &Digest) -> Bytes {
    Key::new(prefix::HOLDER).digest(digest).done()
}

/// Manifest of a repository.
pub fn manifest(repository: RepositoryId, digest: &Digest) -> Bytes {
    Key::new(prefix::MANIFEST)
        .number(repository.0)
        .digest(digest)
        .done()
}

/// Prefix of all manifests of a repository.
pub fn manifests(repository: RepositoryId) -> Bytes {
    Key::new(prefix::MANIFEST).number(repository.0).done()
}

/// Edge from a manifest to a child.
pub fn child(repository: RepositoryId, parent: &Digest, child: &Digest) -> Bytes {
    Key::new(prefix::CHILD)
        .number(repository.0)
        .digest(parent)
        .digest(child)
        .done()
}

/// Prefix of all edges of a manifest.
pub fn children(repository: RepositoryId, parent: &Digest) -> Bytes {
    Key::new(prefix::CHILD)
        .number(repository.0)
        .digest(parent)
        .done()
}

/// Prefix of all edges.
pub fn all_children() -> Bytes {
    Key::new(prefix::CHILD).done()
}

/// The repository and manifest of an edge's key.
pub fn parent_of(key: &[u8]) -> Result<(RepositoryId, Digest), Malformed> {
    let mut decoder = behind_owner(key);
    let parent = decoder.digest()?;
    decoder.digest()?;
    decoder.end()?;
    Ok((owner(key)?, parent))
}

/// Reverse of an edge: a manifest that keeps a digest alive.
pub fn parent(child: &Digest, repository: RepositoryId, parent: &Digest) -> Bytes {
    Key::new(prefix::PARENT)
        .digest(child)
        .number(repository.0)
        .digest(parent)
        .done()
}

/// Prefix of all manifests, in whatever repository, that keep a digest alive.
pub fn parents(child: &Digest) -> Bytes {
    Key::new(prefix::PARENT).digest(child).done()
}

/// Edge from a subject to a referrer.
pub fn referrer(repository: RepositoryId, subject: &Digest, referrer: &Digest) -> Bytes {
    Key::new(prefix::REFERRER)
        .number(repository.0)
        .digest(subject)
        .digest(referrer)
        .done()
}

/// Prefix of all referrers of a subject.
pub fn referrers(repository: RepositoryId, subject: &Digest) -> Bytes {
    Key::new(prefix::REFERRER)
        .number(repository.0)
        .digest(subject)
        .done()
}

/// Tag of a repository.
pub fn tag(repository: RepositoryId, tag: &str) -> Bytes {
    Key::new(prefix::TAG).number(repository.0).text(tag).done()
}

/// Prefix of all tags of a repository.
pub fn tags(repository: RepositoryId) -> Bytes {
    Key::new(prefix::TAG).number(repository.0).done()
}

/// Reverse of a tag.
pub fn tagged(repository: RepositoryId, digest: &Digest, tag: &str) -> Bytes {
    Key::new(prefix::TAGGED)
        .number(repository.0)
        .digest(digest)
        .text(tag)
        .done()
}

/// Prefix of all tags that point at a manifest.
pub fn tagged_prefix(repository: RepositoryId, digest: &Digest) -> Bytes {
    Key::new(prefix::TAGGED)
        .number(repository.0)
        .digest(digest)
        .done()
}

/// Prefix of all reverses of tags.
pub fn all_tagged() -> Bytes {
    Key::new(prefix::TAGGED).done()
}

/// Repository, manifest and tag of the key of a tag's reverse.
pub fn tagged_parts(key: &[u8]) -> Result<(RepositoryId, Digest, String), Malformed> {
    let mut decoder = behind_owner(key);
    let digest = decoder.digest()?;
    let tag = text_behind(
        key,
        key.get(..key.len() - decoder.remaining()).unwrap_or(key),
    )?;
    Ok((owner(key)?, digest, tag))
}

/// Deleted manifest of which rows remain.
pub fn retired(repository: RepositoryId, digest: &Digest) -> Bytes {
    Key::new(prefix::RETIRED)
        .number(repository.0)
        .digest(digest)
        .done()
}

/// Prefix of all deleted manifests of a repository of which rows remain.
pub fn retired_of(repository: RepositoryId) -> Bytes {
    Key::new(prefix::RETIRED).number(repository.0).done()
}

/// Prefix of all deleted manifests of which rows remain.
pub fn all_retired() -> Bytes {
    Key::new(prefix::RETIRED).done()
}

/// The repository and manifest of the key of a deleted manifest.
pub fn retired_parts(key: &[u8]) -> Result<(RepositoryId, Digest), Malformed> {
    let mut decoder = behind_owner(key);
    let digest = decoder.digest()?;
    decoder.end()?;
    Ok((owner(key)?, digest))
}

/// What stands behind table and repository in a key of [`OWNED_PREFIXES`].
fn behind_owner(key: &[u8]) -> Decoder<'_> {
    Decoder::new(key.get(9..).unwrap_or_default())
}

/// Value of a row of a deleted manifest: the transaction that deleted it.
pub fn encode_lsn(lsn: Lsn) -> Bytes {
    let mut out = Encoder::new();
    Bytes::from(out.u64(lsn.0).finish())
}

/// From a row of a deleted manifest.
pub fn decode_lsn(value: &[u8]) -> Result<Lsn, Malformed> {
    let mut decoder = Decoder::new(value);
    let lsn = Lsn(decoder.counter()?);
    decoder.end()?;
    Ok(lsn)
}

/// Blob that was found damaged.
pub fn damaged(digest: &Digest) -> Bytes {
    Key::new(prefix::DAMAGED).digest(digest).done()
}

/// Prefix of all blobs that were found damaged.
pub fn all_damaged() -> Bytes {
    Key::new(prefix::DAMAGED).done()
}

/// Value of a row of a damaged blob: where.
pub fn encode_place(extent: &Extent) -> Bytes {
    let mut out = Encoder::new();
    encode_extent(extent, &mut out);
    Bytes::from(out.finish())
}

/// From a row of a damaged blob.
pub fn decode_place(value: &[u8]) -> Result<Extent, Malformed> {
    let mut decoder = Decoder::new(value);
    let extent = decode_extent(&mut decoder)?;
    decoder.end()?;
    Ok(extent)
}

/// Live bytes of a segment.
pub fn segment(id: SegmentId) -> Bytes {
    Key::new(prefix::SEGMENT).number(id.0).done()
}

/// Prefix of all segments.
pub fn segments() -> Bytes {
    Key::new(prefix::SEGMENT).done()
}

/// Prefix of all index rows.
pub fn blobs() -> Bytes {
    Key::new(prefix::BLOB).done()
}

/// The digest a key ends with, behind `prefix`.
pub fn digest_behind(key: &[u8], prefix: &[u8]) -> Result<Digest, Malformed> {
    let mut decoder = Decoder::new(key.get(prefix.len()..).unwrap_or_default());
    let digest = decoder.digest()?;
    decoder.end()?;
    Ok(digest)
}

/// The text a key ends with, behind `prefix`.
pub fn text_behind(key: &[u8], prefix: &[u8]) -> Result<String, Malformed> {
    let rest = key.get(prefix.len()..).unwrap_or_default();
    std::str::from_utf8(rest)
        .map(str::to_owned)
        .map_err(|error| Malformed(error.to_string()))
}

/// The big-endian number a key ends with, behind `prefix`.
#[expect(clippy::big_endian_bytes, reason = "keys sort as numbers do")]
pub fn number_behind(key: &[u8], prefix: &[u8]) -> Result<u64, Malformed> {
    let mut decoder = Decoder::new(key.get(prefix.len()..).unwrap_or_default());
    let number = u64::from_be_bytes(decoder.array()?);
    decoder.end()?;
    Ok(number)
}

/// Value of an index row: where a blob is, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// LSN of the placement: tells a blob's copies apart over time.
    pub generation: Lsn,
    /// Where the bytes are.
    pub extent: Extent,
}

const SLOT_INLINE: u8 = 1;

impl Slot {
    /// As a row's value.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.u8(SLOT_INLINE).u64(self.generation.0);
        encode_extent(&self.extent, &mut out);
        Bytes::from(out.finish())
    }

    /// From a row's value.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(value);
        let kind = decoder.u8()?;
        if kind != SLOT_INLINE {
            return Err(Malformed(format!("index slot of kind {kind}")));
        }
        let slot = Self {
            generation: Lsn(decoder.counter()?),
            extent: decode_extent(&mut decoder)?,
        };
        decoder.end()?;
        Ok(slot)
    }
}

/// Value of a manifest row; its children are rows of their own.
pub fn encode_manifest(entry: &ManifestEntry) -> Bytes {
    let mut out = Encoder::new();
    out.u64(entry.size)
        .optional_digest(entry.subject.as_ref())
        .bytes(&entry.attributes);
    Bytes::from(out.finish())
}

/// A manifest from its row, without its children.
pub fn decode_manifest(digest: Digest, value: &Bytes) -> Result<ManifestEntry, Malformed> {
    let mut decoder = Decoder::new(value);
    let size = decoder.counter()?;
    let subject = decoder.optional_digest()?;
    let attributes = value.slice(value.len() - decoder.remaining()..);
    Ok(ManifestEntry {
        digest,
        size,
        children: Vec::new(),
        subject,
        attributes,
    })
}

/// Value of a tag row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagValue {
    /// What it points at.
    pub digest: Digest,
    /// Transaction that set it.
    pub lsn: Lsn,
    /// Wall-clock time of that.
    pub unix_ms: u64,
}

impl TagValue {
    /// As a row's value.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.digest(&self.digest).u64(self.lsn.0).u64(self.unix_ms);
        Bytes::from(out.finish())
    }

    /// From a row's value.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(value);
        let tag = Self {
            digest: decoder.digest()?,
            lsn: Lsn(decoder.counter()?),
            unix_ms: decoder.u64()?,
        };
        decoder.end()?;
        Ok(tag)
    }
}

/// Value of a segment row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentUse {
    /// Payload bytes of blobs placed here and not elsewhere since.
    pub live_bytes: u64,
    /// How many such blobs.
    pub live_blobs: u64,
    /// Behind the farthest record that was ever placed here: the file has at least this many bytes.
    pub end: u64,
}

impl SegmentUse {
    /// As a row's value.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.u64(self.live_bytes).u64(self.live_blobs).u64(self.end);
        Bytes::from(out.finish())
    }

    /// From a row's value.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(value);
        let used = Self {
            live_bytes: decoder.counter()?,
            live_blobs: decoder.counter()?,
            end: decoder.counter()?,
        };
        decoder.end()?;
        Ok(used)
    }
}

/// Value of a repository-by-name row.
pub fn encode_id(id: RepositoryId) -> Bytes {
    let mut out = Encoder::new();
    Bytes::from(out.u64(id.0).finish())
}

/// From a repository-by-name row.
pub fn decode_id(value: &[u8]) -> Result<RepositoryId, Malformed> {
    let mut decoder = Decoder::new(value);
    let id = RepositoryId(decoder.counter()?);
    decoder.end()?;
    Ok(id)
}
