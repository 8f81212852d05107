//! Transactions: the payload of a journal frame.
//!
//! Layout: FORMAT.md, "Journal", the table of operations. Logical operations (kinds below 64) could be replayed in
//! another store. The others name places of bytes in this one.

use bytes::Bytes;

use super::codec::{Decoder, Encoder, Malformed};
use super::proof::Proof;
use crate::digest::Digest;
use crate::extent::{Extent, Layout, Lsn, SegmentId, VolumeId};
use crate::limits::{MANIFEST_ATTRIBUTES_BYTES_MAX, MANIFEST_CHILDREN_MAX, ORIGIN_BYTES_MAX};
use crate::vocabulary::{ManifestEntry, Origin};

/// Numeric id of a repository. Never reused: a name that is deleted and created again has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryId(pub u64);

/// One committed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Position in the journal.
    pub lsn: Lsn,
    /// Wall-clock time at commit.
    pub unix_ms: u64,
    /// Actor and request that asked for it.
    pub origin: Origin,
    /// Changes, in order.
    pub operations: Vec<Operation>,
}

/// One change, fully resolved: it is applied without any further check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Creates a repository: gives an id to a name.
    CreateRepository {
        /// The id.
        id: RepositoryId,
        /// The name.
        name: String,
    },
    /// Makes a blob visible in a repository.
    Link {
        /// The repository.
        repository: RepositoryId,
        /// The blob.
        digest: Digest,
    },
    /// Removes a blob's visibility in a repository.
    Unlink {
        /// The repository.
        repository: RepositoryId,
        /// The blob.
        digest: Digest,
    },
    /// Adds or replaces a manifest and its edges.
    PutManifest {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        entry: ManifestEntry,
    },
    /// Deletes a manifest and its edges. Earlier operations deleted its tags.
    DeleteManifest {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        digest: Digest,
    },
    /// Points a tag at a manifest.
    SetTag {
        /// The repository.
        repository: RepositoryId,
        /// The tag.
        tag: String,
        /// Manifest that it points at now.
        digest: Digest,
        /// Manifest that it pointed at before.
        old: Option<Digest>,
    },
    /// Deletes a tag.
    DeleteTag {
        /// The repository.
        repository: RepositoryId,
        /// The tag.
        tag: String,
        /// Manifest that it pointed at.
        old: Digest,
    },
    /// Deletes a repository: its name is free. Its rows are invisible and remain until later operations remove them.
    DeleteRepository {
        /// The id.
        id: RepositoryId,
        /// The name.
        name: String,
    },
    /// Ends the removal of a deleted repository: no row of it remains.
    ForgetRepository {
        /// The id.
        id: RepositoryId,
    },
    /// Deletes a manifest with very many tags or edges. Tags that were set to it before this transaction no longer
    /// count. Its tags and edges remain as rows until later operations remove them.
    RetireManifest {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        digest: Digest,
    },
    /// Removes edges of a retired manifest.
    DropEdges {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        digest: Digest,
        /// Children that the edges lead to.
        children: Vec<Digest>,
    },
    /// Ends the removal of a retired manifest: no row of it remains.
    ForgetManifest {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        digest: Digest,
    },
    /// Places a blob: from this LSN on its bytes are at an extent.
    PlaceBlob {
        /// The blob.
        digest: Digest,
        /// Extent of its bytes.
        extent: Extent,
    },
    /// Reserves segment ids: all below the limit may be in use.
    ReserveSegmentIds {
        /// First id that is not reserved.
        limit: SegmentId,
    },
    /// Marks a blob's bytes at an extent as damaged, until it is placed elsewhere.
    MarkDamaged {
        /// The blob.
        digest: Digest,
        /// Extent of the damaged bytes.
        extent: Extent,
        /// What a read must prove to clear the mark.
        proof: Proof,
    },
    /// Clears the mark of damage: a later read found the bytes at this extent intact.
    MarkWhole {
        /// The blob.
        digest: Digest,
        /// Extent of its bytes.
        extent: Extent,
    },
    /// Removes a blob from the index, because nothing references it. Earlier operations removed its links. The bytes at
    /// the extent are garbage.
    RemoveBlob {
        /// The blob.
        digest: Digest,
        /// Extent of its bytes.
        extent: Extent,
    },
    /// Clears a suspect: something references the digest, or it is not stored.
    ClearSuspect {
        /// The digest.
        digest: Digest,
    },
}

const SKIPPABLE: u16 = 1;

impl Transaction {
    /// Appends the encoded transaction, its length first.
    pub fn encode(&self, out: &mut Encoder) {
        let mut body = Encoder::new();
        body.u64(self.lsn.0).u64(self.unix_ms);
        body.text(cut(&self.origin.actor))
            .text(cut(&self.origin.request));
        body.count(self.operations.len());
        for operation in &self.operations {
            let mut inner = Encoder::new();
            let kind = operation.encode(&mut inner);
            let inner = inner.finish();
            body.u16(kind).u16(0).count(inner.len()).bytes(&inner);
        }
        let body = body.finish();
        out.count(body.len()).bytes(&body);
    }

    /// Decodes one transaction from the front of `from`.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let length = from.count()?;
        let mut body = Decoder::new(from.bytes(length)?);
        let lsn = Lsn(body.counter()?);
        let unix_ms = body.u64()?;
        let origin = Origin {
            actor: body.text()?,
            request: body.text()?,
        };
        let mut operations = Vec::new();
        for _ in 0..body.count()? {
            let (kind, flags) = (body.u16()?, body.u16()?);
            let length = body.count()?;
            let mut inner = Decoder::new(body.bytes(length)?);
            match Operation::decode(kind, &mut inner)? {
                Some(operation) => {
                    inner.end()?;
                    operations.push(operation);
                }
                None if flags & SKIPPABLE != 0 => {}
                None => return Err(Malformed(format!("operation of unknown kind {kind}"))),
            }
        }
        body.end()?;
        Ok(Self {
            lsn,
            unix_ms,
            origin,
            operations,
        })
    }
}

/// Cuts text to [`ORIGIN_BYTES_MAX`] bytes at a character boundary.
fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(ORIGIN_BYTES_MAX);
    text.get(..end).unwrap_or_default()
}

impl Operation {
    fn encode(&self, out: &mut Encoder) -> u16 {
        match self {
            Self::CreateRepository { id, name } => {
                out.u64(id.0).text(name);
                1
            }
            Self::Link { repository, digest } => named(out, *repository, digest, 2),
            Self::Unlink { repository, digest } => named(out, *repository, digest, 3),
            Self::PutManifest { repository, entry } => {
                out.u64(repository.0);
                encode_manifest(entry, out);
                4
            }
            Self::DeleteManifest { repository, digest } => named(out, *repository, digest, 5),
            Self::SetTag {
                repository,
                tag,
                digest,
                old,
            } => {
                out.u64(repository.0)
                    .text(tag)
                    .digest(digest)
                    .optional_digest(old.as_ref());
                6
            }
            Self::DeleteTag {
                repository,
                tag,
                old,
            } => {
                out.u64(repository.0).text(tag).digest(old);
                7
            }
            Self::DeleteRepository { id, name } => {
                out.u64(id.0).text(name);
                8
            }
            Self::ForgetRepository { id } => numbered(out, id.0, 9),
            Self::RetireManifest { repository, digest } => named(out, *repository, digest, 10),
            Self::DropEdges {
                repository,
                digest,
                children,
            } => {
                out.u64(repository.0).digest(digest).count(children.len());
                for child in children {
                    out.digest(child);
                }
                11
            }
            Self::ForgetManifest { repository, digest } => named(out, *repository, digest, 12),
            Self::PlaceBlob { digest, extent } => encode_place(digest, extent, out, 64),
            Self::ReserveSegmentIds { limit } => numbered(out, limit.0, 65),
            Self::MarkDamaged {
                digest,
                extent,
                proof,
            } => {
                let kind = encode_place(digest, extent, out, 66);
                proof.encode(out);
                kind
            }
            Self::MarkWhole { digest, extent } => encode_place(digest, extent, out, 67),
            Self::RemoveBlob { digest, extent } => encode_place(digest, extent, out, 68),
            Self::ClearSuspect { digest } => {
                out.digest(digest);
                69
            }
        }
    }

    /// Decodes an operation. Returns `None` for an unknown kind.
    fn decode(kind: u16, from: &mut Decoder<'_>) -> Result<Option<Self>, Malformed> {
        let operation = match kind {
            1 => Self::CreateRepository {
                id: RepositoryId(from.counter()?),
                name: from.text()?,
            },
            2 => Self::Link {
                repository: RepositoryId(from.counter()?),
                digest: from.digest()?,
            },
            3 => Self::Unlink {
                repository: RepositoryId(from.counter()?),
                digest: from.digest()?,
            },
            4 => Self::PutManifest {
                repository: RepositoryId(from.counter()?),
                entry: decode_manifest(from)?,
            },
            5 => Self::DeleteManifest {
                repository: RepositoryId(from.counter()?),
                digest: from.digest()?,
            },
            6 => Self::SetTag {
                repository: RepositoryId(from.counter()?),
                tag: from.text()?,
                digest: from.digest()?,
                old: from.optional_digest()?,
            },
            7 => Self::DeleteTag {
                repository: RepositoryId(from.counter()?),
                tag: from.text()?,
                old: from.digest()?,
            },
            8 => Self::DeleteRepository {
                id: RepositoryId(from.counter()?),
                name: from.text()?,
            },
            9 => Self::ForgetRepository {
                id: RepositoryId(from.counter()?),
            },
            10 => Self::RetireManifest {
                repository: RepositoryId(from.counter()?),
                digest: from.digest()?,
            },
            11 => Self::DropEdges {
                repository: RepositoryId(from.counter()?),
                digest: from.digest()?,
                children: decode_children(from)?,
            },
            12 => Self::ForgetManifest {
                repository: RepositoryId(from.counter()?),
                digest: from.digest()?,
            },
            _ => return Self::decode_placement(kind, from),
        };
        Ok(Some(operation))
    }

    /// Decodes an operation about places in this store. Returns `None` for an unknown kind.
    fn decode_placement(kind: u16, from: &mut Decoder<'_>) -> Result<Option<Self>, Malformed> {
        let operation = match kind {
            64 => Self::PlaceBlob {
                digest: from.digest()?,
                extent: decode_extent(from)?,
            },
            65 => Self::ReserveSegmentIds {
                limit: SegmentId(from.counter()?),
            },
            66 => Self::MarkDamaged {
                digest: from.digest()?,
                extent: decode_extent(from)?,
                proof: Proof::decode(from)?,
            },
            67 => Self::MarkWhole {
                digest: from.digest()?,
                extent: decode_extent(from)?,
            },
            68 => Self::RemoveBlob {
                digest: from.digest()?,
                extent: decode_extent(from)?,
            },
            69 => Self::ClearSuspect {
                digest: from.digest()?,
            },
            _ => return Ok(None),
        };
        Ok(Some(operation))
    }
}

/// Writes an operation that consists of a number.
fn numbered(out: &mut Encoder, number: u64, kind: u16) -> u16 {
    out.u64(number);
    kind
}

/// Writes an operation that consists of a repository and a digest.
fn named(out: &mut Encoder, repository: RepositoryId, digest: &Digest, kind: u16) -> u16 {
    out.u64(repository.0).digest(digest);
    kind
}

fn encode_manifest(entry: &ManifestEntry, out: &mut Encoder) {
    out.digest(&entry.digest)
        .u64(entry.size)
        .optional_digest(entry.subject.as_ref());
    out.count(entry.children.len());
    for child in &entry.children {
        out.digest(child);
    }
    out.count(entry.attributes.len()).bytes(&entry.attributes);
}

fn decode_children(from: &mut Decoder<'_>) -> Result<Vec<Digest>, Malformed> {
    let count = from.count()?;
    if count > MANIFEST_CHILDREN_MAX {
        return Err(Malformed(format!("a manifest with {count} children")));
    }
    (0..count).map(|_| from.digest()).collect()
}

fn decode_manifest(from: &mut Decoder<'_>) -> Result<ManifestEntry, Malformed> {
    let digest = from.digest()?;
    let size = from.counter()?;
    let subject = from.optional_digest()?;
    let children = decode_children(from)?;
    let length = from.count()?;
    if length > MANIFEST_ATTRIBUTES_BYTES_MAX {
        return Err(Malformed(format!(
            "a manifest with {length} bytes of attributes"
        )));
    }
    let attributes = Bytes::copy_from_slice(from.bytes(length)?);
    Ok(ManifestEntry {
        digest,
        size,
        children,
        subject,
        attributes,
    })
}

fn encode_place(digest: &Digest, extent: &Extent, out: &mut Encoder, kind: u16) -> u16 {
    out.digest(digest);
    encode_extent(extent, out);
    kind
}

/// Writes an extent: volume, segment, offset, length, layout.
pub fn encode_extent(extent: &Extent, out: &mut Encoder) {
    let layout = match extent.layout {
        Layout::Leading => 0,
        Layout::Trailing => 1,
    };
    out.u16(extent.volume.0)
        .u64(extent.segment.0)
        .u64(extent.offset)
        .u64(extent.length)
        .u8(layout);
}

/// Reads an extent.
pub fn decode_extent(from: &mut Decoder<'_>) -> Result<Extent, Malformed> {
    Ok(Extent {
        volume: VolumeId(from.u16()?),
        segment: SegmentId(from.counter()?),
        offset: from.counter()?,
        length: from.counter()?,
        layout: match from.u8()? {
            0 => Layout::Leading,
            1 => Layout::Trailing,
            other => return Err(Malformed(format!("unknown layout {other} of an extent"))),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    fn every_kind() -> Vec<Operation> {
        let repository = RepositoryId(7);
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let wide = Digest::of(Algorithm::Sha512, b"x");
        let entry = ManifestEntry {
            digest,
            size: 512,
            children: vec![wide, digest],
            subject: Some(wide),
            attributes: Bytes::from_static(b"type"),
        };
        let mut kinds = vec![
            Operation::CreateRepository {
                id: repository,
                name: "a/b".into(),
            },
            Operation::Link { repository, digest },
            Operation::Unlink {
                repository,
                digest: wide,
            },
            Operation::PutManifest { repository, entry },
            Operation::DeleteManifest { repository, digest },
            Operation::SetTag {
                repository,
                tag: "v1".into(),
                digest,
                old: Some(wide),
            },
            Operation::SetTag {
                repository,
                tag: "v2".into(),
                digest,
                old: None,
            },
            Operation::DeleteTag {
                repository,
                tag: "v1".into(),
                old: digest,
            },
            Operation::DeleteRepository {
                id: repository,
                name: "a/b".into(),
            },
            Operation::ForgetRepository { id: repository },
            Operation::RetireManifest { repository, digest },
            Operation::DropEdges {
                repository,
                digest,
                children: vec![wide, digest],
            },
            Operation::ForgetManifest {
                repository,
                digest: wide,
            },
        ];
        kinds.extend(every_placement(digest, wide));
        kinds
    }

    fn every_placement(digest: Digest, wide: Digest) -> [Operation; 6] {
        let extent = Extent {
            volume: VolumeId(0),
            segment: SegmentId(3),
            offset: 4096,
            length: 1 << 33,
            layout: Layout::Trailing,
        };
        let limit = SegmentId(4096);
        [
            Operation::PlaceBlob { digest, extent },
            Operation::ReserveSegmentIds { limit },
            Operation::MarkDamaged {
                digest: wide,
                extent,
                proof: Proof::Digest,
            },
            Operation::MarkWhole {
                digest: wide,
                extent,
            },
            Operation::RemoveBlob { digest, extent },
            Operation::ClearSuspect { digest },
        ]
    }

    fn sample() -> Transaction {
        let origin = Origin {
            actor: "alice".into(),
            request: "r-1".into(),
        };
        Transaction {
            lsn: Lsn(42),
            unix_ms: 17,
            origin,
            operations: every_kind(),
        }
    }

    fn encoded(transaction: &Transaction) -> Vec<u8> {
        let mut out = Encoder::new();
        transaction.encode(&mut out);
        out.finish()
    }

    /// Guards: the layout of every operation; a changed byte is a changed format.
    #[test]
    fn golden_bytes() {
        let bytes = encoded(&sample());
        assert_eq!(Transaction::decode(&mut Decoder::new(&bytes)), Ok(sample()));
        assert_eq!(bytes.len(), 1407);
        assert_eq!(crate::format::codec::checksum(&bytes), GOLDEN);
    }

    const GOLDEN: u32 = 1_816_427_838;

    /// Guards: a cut or changed transaction is an error, never a panic or a read past its end.
    #[test]
    fn every_prefix_is_rejected() {
        let bytes = encoded(&sample());
        for length in 0..bytes.len() {
            assert!(
                Transaction::decode(&mut Decoder::new(&bytes[..length])).is_err(),
                "{length}"
            );
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            // Decoding must only return. The frame's checksum detects the change.
            drop(Transaction::decode(&mut Decoder::new(&changed)));
        }
    }

    /// Guards: an unknown operation stops an older reader unless it is marked as skippable.
    #[test]
    fn unknown_operations_are_skipped_only_if_marked() {
        let with_flags = |flags: u16| {
            let mut body = Encoder::new();
            body.u64(1)
                .u64(2)
                .text("")
                .text("")
                .count(1)
                .u16(63)
                .u16(flags)
                .count(3)
                .bytes(b"new");
            let body = body.finish();
            let mut out = Encoder::new();
            out.count(body.len()).bytes(&body);
            out.finish()
        };
        assert!(Transaction::decode(&mut Decoder::new(&with_flags(0))).is_err());
        let skipped = with_flags(SKIPPABLE);
        assert_eq!(
            Transaction::decode(&mut Decoder::new(&skipped))
                .unwrap()
                .operations,
            []
        );
    }
}
