//! Encoding of row keys and values.
//!
//! Owns: the only code that knows how a row is encoded (FORMAT.md, "Rows"). Numbers in keys are big-endian, so that
//! keys sort as numbers do.

use std::hash::Hasher as _;

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use super::codec::{Decoder, Encoder, Malformed};
use super::proof::Proof;
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

/// Returns the key of a blob's index row. It starts with a keyed hash, which spreads digests that clients choose.
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

/// Returns the prefixes of all tables whose keys begin with a digest. Together they have every digest that is stored.
pub fn by_digest() -> [Bytes; 4] {
    [
        prefix::HOLDER,
        prefix::MANIFEST_HOLDER,
        prefix::PARENT,
        prefix::SUSPECT,
    ]
    .map(|table| Key::new(table).done())
}

/// Returns the digest with which a key of [`by_digest`] begins.
pub fn first_digest(key: &[u8]) -> Result<Digest, Malformed> {
    Decoder::new(key.get(1..).unwrap_or_default()).digest()
}

/// Returns the digest of the blob of an index row; `None` if it has 64 bytes, of which the row has only a hash.
pub fn digest_of_blob(key: &[u8]) -> Option<Digest> {
    Decoder::new(key.get(9..)?).digest().ok()
}

/// Returns the digest of the blob of an index row, for messages. The row of a 64-byte digest has only its hashed key.
pub fn name_of_blob(key: &[u8]) -> String {
    let digest = Decoder::new(key.get(9..).unwrap_or_default()).digest();
    digest.map_or_else(
        |_| format!("row {}", key.escape_ascii()),
        |digest| digest.to_string(),
    )
}

/// Returns the key of a repository by name.
pub fn repository_by_name(name: &str) -> Bytes {
    Key::new(prefix::REPOSITORY_BY_NAME).text(name).done()
}

/// Returns the prefix of all repositories by name.
pub fn repositories() -> Bytes {
    Key::new(prefix::REPOSITORY_BY_NAME).done()
}

/// Returns the key of a repository by id.
pub fn repository_by_id(id: RepositoryId) -> Bytes {
    Key::new(prefix::REPOSITORY_BY_ID).number(id.0).done()
}

/// Returns the key of a deleted repository of which rows remain.
pub fn deleted(id: RepositoryId) -> Bytes {
    Key::new(prefix::DELETED).number(id.0).done()
}

/// Returns the prefix of all deleted repositories of which rows remain.
pub fn all_deleted() -> Bytes {
    Key::new(prefix::DELETED).done()
}

/// Tables whose keys continue with a repository's id.
pub const OWNED_PREFIXES: [u8; 7] = [
    prefix::LINK,
    prefix::MANIFEST,
    prefix::CHILD,
    prefix::REFERRER,
    prefix::TAG,
    prefix::TAGGED,
    prefix::RETIRED,
];

/// Returns the prefix of a repository's rows in one table of [`OWNED_PREFIXES`].
pub fn owned(table: u8, id: RepositoryId) -> Bytes {
    Key::new(table).number(id.0).done()
}

/// Returns the repository of a row in a table of [`OWNED_PREFIXES`].
#[expect(clippy::big_endian_bytes, reason = "keys sort as numbers do")]
pub fn owner(key: &[u8]) -> Result<RepositoryId, Malformed> {
    let mut decoder = Decoder::new(key.get(1..).unwrap_or_default());
    Ok(RepositoryId(u64::from_be_bytes(decoder.array()?)))
}

/// Returns the key of a repository's usage.
pub fn usage(repository: RepositoryId) -> Bytes {
    Key::new(prefix::USAGE).number(repository.0).done()
}

/// Returns the prefix of all usages.
pub fn usages() -> Bytes {
    Key::new(prefix::USAGE).done()
}

/// Returns the prefix of all links of all repositories.
pub fn all_links() -> Bytes {
    Key::new(prefix::LINK).done()
}

/// Returns the prefix of all manifests of all repositories.
pub fn all_manifests() -> Bytes {
    Key::new(prefix::MANIFEST).done()
}

/// Returns the repository and digest of the key of a link, manifest or deleted manifest.
pub fn owned_digest(key: &[u8]) -> Result<(RepositoryId, Digest), Malformed> {
    let mut decoder = after_owner(key);
    let digest = decoder.digest()?;
    decoder.end()?;
    Ok((owner(key)?, digest))
}

/// Returns the key of a link: a blob's visibility in a repository.
pub fn link(repository: RepositoryId, digest: &Digest) -> Bytes {
    Key::new(prefix::LINK)
        .number(repository.0)
        .digest(digest)
        .done()
}

/// Returns the prefix of all links of a repository.
pub fn links(repository: RepositoryId) -> Bytes {
    Key::new(prefix::LINK).number(repository.0).done()
}

/// Returns the key of a link's reverse: a repository that holds a blob.
pub fn holder(digest: &Digest, repository: RepositoryId) -> Bytes {
    Key::new(prefix::HOLDER)
        .digest(digest)
        .number(repository.0)
        .done()
}

/// Returns the prefix of all repositories that hold a blob.
pub fn holders(digest: &Digest) -> Bytes {
    Key::new(prefix::HOLDER).digest(digest).done()
}

/// Returns the key of a manifest.
pub fn manifest(repository: RepositoryId, digest: &Digest) -> Bytes {
    Key::new(prefix::MANIFEST)
        .number(repository.0)
        .digest(digest)
        .done()
}

/// Returns the prefix of all manifests of a repository.
pub fn manifests(repository: RepositoryId) -> Bytes {
    Key::new(prefix::MANIFEST).number(repository.0).done()
}

/// Returns the key of a manifest's reverse: a repository that has a digest as a manifest.
pub fn manifest_holder(digest: &Digest, repository: RepositoryId) -> Bytes {
    Key::new(prefix::MANIFEST_HOLDER)
        .digest(digest)
        .number(repository.0)
        .done()
}

/// Returns the prefix of all repositories that have a digest as a manifest.
pub fn manifest_holders(digest: &Digest) -> Bytes {
    Key::new(prefix::MANIFEST_HOLDER).digest(digest).done()
}

/// Returns the key of an edge from a manifest to a child.
pub fn child(repository: RepositoryId, parent: &Digest, child: &Digest) -> Bytes {
    Key::new(prefix::CHILD)
        .number(repository.0)
        .digest(parent)
        .digest(child)
        .done()
}

/// Returns the prefix of all edges of a manifest.
pub fn children(repository: RepositoryId, parent: &Digest) -> Bytes {
    Key::new(prefix::CHILD)
        .number(repository.0)
        .digest(parent)
        .done()
}

/// Returns the prefix of all edges.
pub fn all_children() -> Bytes {
    Key::new(prefix::CHILD).done()
}

/// Returns the repository and the parent manifest of an edge's key.
pub fn parent_of(key: &[u8]) -> Result<(RepositoryId, Digest), Malformed> {
    let mut decoder = after_owner(key);
    let parent = decoder.digest()?;
    decoder.digest()?;
    decoder.end()?;
    Ok((owner(key)?, parent))
}

/// Returns the key of an edge's reverse: a manifest that keeps a digest alive.
pub fn parent(child: &Digest, repository: RepositoryId, parent: &Digest) -> Bytes {
    Key::new(prefix::PARENT)
        .digest(child)
        .number(repository.0)
        .digest(parent)
        .done()
}

/// Returns the prefix of all manifests, of any repository, that keep a digest alive.
pub fn parents(child: &Digest) -> Bytes {
    Key::new(prefix::PARENT).digest(child).done()
}

/// Returns the prefix of all manifests of a repository that keep a digest alive. It sorts before them.
pub fn parents_in(child: &Digest, repository: RepositoryId) -> Bytes {
    Key::new(prefix::PARENT)
        .digest(child)
        .number(repository.0)
        .done()
}

/// Returns the repository and manifest that end the key of an edge's reverse, after the prefix [`parents`].
pub fn parent_after(key: &[u8], prefix: &[u8]) -> Result<(RepositoryId, Digest), Malformed> {
    let rest = key.get(prefix.len()..).unwrap_or_default();
    let (id, parent) = rest.split_at(rest.len().min(8));
    let id = number_after(id, &[])?;
    Ok((RepositoryId(id), digest_after(parent, &[])?))
}

/// Returns the key of an edge from a subject to a referrer.
pub fn referrer(repository: RepositoryId, subject: &Digest, referrer: &Digest) -> Bytes {
    Key::new(prefix::REFERRER)
        .number(repository.0)
        .digest(subject)
        .digest(referrer)
        .done()
}

/// Returns the prefix of all referrers of a subject.
pub fn referrers(repository: RepositoryId, subject: &Digest) -> Bytes {
    Key::new(prefix::REFERRER)
        .number(repository.0)
        .digest(subject)
        .done()
}

/// Returns the key of a tag.
pub fn tag(repository: RepositoryId, tag: &str) -> Bytes {
    Key::new(prefix::TAG).number(repository.0).text(tag).done()
}

/// Returns the prefix of all tags of a repository.
pub fn tags(repository: RepositoryId) -> Bytes {
    Key::new(prefix::TAG).number(repository.0).done()
}

/// Returns the key of a tag's reverse.
pub fn tagged(repository: RepositoryId, digest: &Digest, tag: &str) -> Bytes {
    Key::new(prefix::TAGGED)
        .number(repository.0)
        .digest(digest)
        .text(tag)
        .done()
}

/// Returns the prefix of all tags that point at a manifest.
pub fn tagged_prefix(repository: RepositoryId, digest: &Digest) -> Bytes {
    Key::new(prefix::TAGGED)
        .number(repository.0)
        .digest(digest)
        .done()
}

/// Returns the prefix of all reverses of tags.
pub fn all_tagged() -> Bytes {
    Key::new(prefix::TAGGED).done()
}

/// Returns the repository, manifest and tag of the key of a tag's reverse.
pub fn tagged_parts(key: &[u8]) -> Result<(RepositoryId, Digest, String), Malformed> {
    let mut decoder = after_owner(key);
    let digest = decoder.digest()?;
    let tag = text_after(
        key,
        key.get(..key.len() - decoder.remaining()).unwrap_or(key),
    )?;
    Ok((owner(key)?, digest, tag))
}

/// Returns the key of a deleted manifest of which rows remain.
pub fn retired(repository: RepositoryId, digest: &Digest) -> Bytes {
    Key::new(prefix::RETIRED)
        .number(repository.0)
        .digest(digest)
        .done()
}

/// Returns the prefix of all deleted manifests of a repository of which rows remain.
pub fn retired_of(repository: RepositoryId) -> Bytes {
    Key::new(prefix::RETIRED).number(repository.0).done()
}

/// Returns the prefix of all deleted manifests of which rows remain.
pub fn all_retired() -> Bytes {
    Key::new(prefix::RETIRED).done()
}

/// Returns a decoder of what follows the table and the repository in a key of [`OWNED_PREFIXES`].
fn after_owner(key: &[u8]) -> Decoder<'_> {
    Decoder::new(key.get(9..).unwrap_or_default())
}

/// Returns the key of a suspect: a digest that may be garbage.
pub fn suspect(digest: &Digest) -> Bytes {
    Key::new(prefix::SUSPECT).digest(digest).done()
}

/// Returns the prefix of all suspects.
pub fn suspects() -> Bytes {
    Key::new(prefix::SUSPECT).done()
}

/// Encodes the value of a deleted manifest's row: the transaction that deleted it.
pub fn encode_lsn(lsn: Lsn) -> Bytes {
    let mut out = Encoder::new();
    Bytes::from(out.u64(lsn.0).finish())
}

/// Decodes the value of a deleted manifest's row.
pub fn decode_lsn(value: &[u8]) -> Result<Lsn, Malformed> {
    let mut decoder = Decoder::new(value);
    let lsn = Lsn(decoder.counter()?);
    decoder.end()?;
    Ok(lsn)
}

/// Returns the key of a mark of damage on a blob.
pub fn damaged(digest: &Digest) -> Bytes {
    Key::new(prefix::DAMAGED).digest(digest).done()
}

/// Returns the prefix of all marks of damage.
pub fn all_damaged() -> Bytes {
    Key::new(prefix::DAMAGED).done()
}

/// The value of a mark of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedPlace {
    /// The extent that is damaged.
    pub extent: Extent,
    /// What a read must prove to clear the mark.
    pub proof: Proof,
}

impl DamagedPlace {
    /// Encodes the value.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        encode_extent(&self.extent, &mut out);
        self.proof.encode(&mut out);
        Bytes::from(out.finish())
    }

    /// Decodes the value.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(value);
        let extent = decode_extent(&mut decoder)?;
        let proof = Proof::decode(&mut decoder)?;
        decoder.end()?;
        Ok(Self { extent, proof })
    }
}

/// Returns the key of a segment's row.
pub fn segment(id: SegmentId) -> Bytes {
    Key::new(prefix::SEGMENT).number(id.0).done()
}

/// Returns the prefix of all segments.
pub fn segments() -> Bytes {
    Key::new(prefix::SEGMENT).done()
}

/// Returns the prefix of all index rows.
pub fn blobs() -> Bytes {
    Key::new(prefix::BLOB).done()
}

/// Returns the digest that ends a key, after `prefix`.
pub fn digest_after(key: &[u8], prefix: &[u8]) -> Result<Digest, Malformed> {
    let mut decoder = Decoder::new(key.get(prefix.len()..).unwrap_or_default());
    let digest = decoder.digest()?;
    decoder.end()?;
    Ok(digest)
}

/// Returns the text that ends a key, after `prefix`.
pub fn text_after(key: &[u8], prefix: &[u8]) -> Result<String, Malformed> {
    let rest = key.get(prefix.len()..).unwrap_or_default();
    std::str::from_utf8(rest)
        .map(str::to_owned)
        .map_err(|error| Malformed(error.to_string()))
}

/// Returns the big-endian number that ends a key, after `prefix`.
#[expect(clippy::big_endian_bytes, reason = "keys sort as numbers do")]
pub fn number_after(key: &[u8], prefix: &[u8]) -> Result<u64, Malformed> {
    let mut decoder = Decoder::new(key.get(prefix.len()..).unwrap_or_default());
    let number = u64::from_be_bytes(decoder.array()?);
    decoder.end()?;
    Ok(number)
}

/// Value of an index row: the extent of a blob, and the transaction that placed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// LSN of the placement. It distinguishes the copies of a blob over time.
    pub generation: Lsn,
    /// Extent of the bytes.
    pub extent: Extent,
}

const SLOT_INLINE: u8 = 1;

impl Slot {
    /// Encodes the value of a row.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.u8(SLOT_INLINE).u64(self.generation.0);
        encode_extent(&self.extent, &mut out);
        Bytes::from(out.finish())
    }

    /// Decodes the value of a row.
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

/// Encodes the value of a manifest row. Its children are rows of their own.
pub fn encode_manifest(entry: &ManifestEntry) -> Bytes {
    let mut out = Encoder::new();
    out.u64(entry.size)
        .optional_digest(entry.subject.as_ref())
        .bytes(&entry.attributes);
    Bytes::from(out.finish())
}

/// Decodes the value of a manifest row; the entry has no children.
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
    /// Manifest that the tag points at.
    pub digest: Digest,
    /// Transaction that set the tag.
    pub lsn: Lsn,
    /// Wall-clock time of that transaction.
    pub unix_ms: u64,
}

impl TagValue {
    /// Encodes the value of a row.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.digest(&self.digest).u64(self.lsn.0).u64(self.unix_ms);
        Bytes::from(out.finish())
    }

    /// Decodes the value of a row.
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

/// Value of a suspect's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    /// Transaction since which nothing is known to reference the digest.
    pub lsn: Lsn,
    /// Wall-clock time of that transaction.
    pub unix_ms: u64,
}

impl Suspect {
    /// Encodes the value of a row.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        Bytes::from(out.u64(self.lsn.0).u64(self.unix_ms).finish())
    }

    /// Decodes the value of a row.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(value);
        let suspect = Self {
            lsn: Lsn(decoder.counter()?),
            unix_ms: decoder.u64()?,
        };
        decoder.end()?;
        Ok(suspect)
    }
}

/// Value of a segment row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentUse {
    /// Payload bytes of the blobs that were placed here and not elsewhere since.
    pub live_bytes: u64,
    /// Number of these blobs.
    pub live_blobs: u64,
    /// Bytes that their records take in the file, padding included.
    pub record_bytes: u64,
    /// End of the farthest record that was ever placed here. The file has at least this many bytes.
    pub end: u64,
}

impl SegmentUse {
    /// Encodes the value of a row.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.u64(self.live_bytes)
            .u64(self.live_blobs)
            .u64(self.record_bytes)
            .u64(self.end);
        Bytes::from(out.finish())
    }

    /// Decodes the value of a row.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(value);
        let used = Self {
            live_bytes: decoder.counter()?,
            live_blobs: decoder.counter()?,
            record_bytes: decoder.counter()?,
            end: decoder.counter()?,
        };
        decoder.end()?;
        Ok(used)
    }
}

/// Value of a usage row: what a repository has, as links and manifests. A digest that is both counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepositoryUsage {
    /// Number of digests.
    pub blobs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Number of digests that no other repository has.
    pub unique_blobs: u64,
    /// Their payload bytes.
    pub unique_bytes: u64,
}

impl RepositoryUsage {
    /// Encodes the value of a row.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.u64(self.blobs)
            .u64(self.bytes)
            .u64(self.unique_blobs)
            .u64(self.unique_bytes);
        Bytes::from(out.finish())
    }

    /// Decodes the value of a row.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(value);
        let usage = Self {
            blobs: decoder.counter()?,
            bytes: decoder.counter()?,
            unique_blobs: decoder.counter()?,
            unique_bytes: decoder.counter()?,
        };
        decoder.end()?;
        Ok(usage)
    }
}

/// Encodes the value of a repository-by-name row.
pub fn encode_id(id: RepositoryId) -> Bytes {
    let mut out = Encoder::new();
    Bytes::from(out.u64(id.0).finish())
}

/// Decodes the value of a repository-by-name row.
pub fn decode_id(value: &[u8]) -> Result<RepositoryId, Malformed> {
    let mut decoder = Decoder::new(value);
    let id = RepositoryId(decoder.counter()?);
    decoder.end()?;
    Ok(id)
}
