//! Transactions: what a journal frame carries.
//!
//! Layout: FORMAT.md, "Journal", the table of operations. Logical operations (kinds below 64) could be
//! replayed in another store; placements say where bytes are in this one.

use bytes::Bytes;

use super::codec::{Decoder, Encoder, Malformed};
use crate::digest::Digest;
use crate::extent::{Extent, Layout, Lsn, SegmentId, VolumeId};
use crate::limits::{MANIFEST_ATTRIBUTES_BYTES_MAX, MANIFEST_CHILDREN_MAX, ORIGIN_BYTES_MAX};
use crate::vocabulary::{ManifestEntry, Origin};

/// Numeric identity of a repository; never reused, so a deleted and re-created name is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryId(pub u64);

/// One committed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its position.
    pub lsn: Lsn,
    /// Wall-clock time at commit.
    pub unix_ms: u64,
    /// Who asked.
    pub origin: Origin,
    /// What changed, in order.
    pub operations: Vec<Operation>,
}

/// One change, fully resolved: applying it needs no judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A name gets an id.
    CreateRepository {
        /// The id.
        id: RepositoryId,
        /// The name.
        name: String,
    },
    /// A blob becomes visible in a repository.
    Link {
        /// The repository.
        repository: RepositoryId,
        /// The blob.
        digest: Digest,
    },
    /// A blob is no longer visible in a repository.
    Unlink {
        /// The repository.
        repository: RepositoryId,
        /// The blob.
        digest: Digest,
    },
    /// A manifest and its edges.
    PutManifest {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        entry: ManifestEntry,
    },
    /// A manifest goes, with its edges. Its tags were removed by operations before this one.
    DeleteManifest {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        digest: Digest,
    },
    /// A tag moves.
    SetTag {
        /// The repository.
        repository: RepositoryId,
        /// The tag.
        tag: String,
        /// What it points at now.
        digest: Digest,
        /// What it pointed at before.
        old: Option<Digest>,
    },
    /// A tag goes.
    DeleteTag {
        /// The repository.
        repository: RepositoryId,
        /// The tag.
        tag: String,
        /// What it pointed at.
        old: Digest,
    },
    /// A name loses its repository. Its rows remain, reachable by nobody, until operations behind this one removed them.
    DeleteRepository {
        /// The id.
        id: RepositoryId,
        /// The name.
        name: String,
    },
    /// Nothing remains of a deleted repository.
    ForgetRepository {
        /// The id.
        id: RepositoryId,
    },
    /// A manifest with very many tags or edges goes, and no tag that was set to it before this transaction counts any
    /// more. Tags and edges remain as rows until operations behind this one removed them.
    RetireManifest {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        digest: Digest,
    },
    /// Edges of a manifest that was retired go.
    DropEdges {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        digest: Digest,
        /// What they lead to.
        children: Vec<Digest>,
    },
    /// Nothing remains of a manifest that was retired.
    ForgetManifest {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        digest: Digest,
    },
    /// A blob's bytes are at an extent, from this LSN on.
    PlaceBlob {
        /// The blob.
        digest: Digest,
        /// Where its bytes are.
        extent: Extent,
    },
    /// Segment ids below this may be in use.
    ReserveSegmentIds {
        /// First id not reserved.
        limit: SegmentId,
    },
    /// A blob's bytes at an extent are damaged, until others are placed.
    MarkDamaged {
        /// The blob.
        digest: Digest,
        /// Where its bytes were found damaged.
        extent: Extent,
    },
    /// A blob's bytes at an extent, which were marked damaged, were read and are whole.
    MarkWhole {
        /// The blob.
        digest: Digest,
        /// Where its bytes are.
        extent: Extent,
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

    /// Reads one transaction from the front.
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

/// Cuts text to what a transaction keeps, at a character's edge.
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
            Self::ForgetRepository { id } => {
                out.u64(id.0);
                9
            }
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
            Self::ReserveSegmentIds { limit } => {
                out.u64(limit.0);
                65
            }
            Self::MarkDamaged { digest, extent } => encode_place(digest, extent, out, 66),
            Self::MarkWhole { digest, extent } => encode_place(digest, extent, out, 67),
        }
    }

    /// `None`: a kind this program does not know.
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
            },
            67 => Self::MarkWhole {
                digest: from.digest()?,
                extent: decode_extent(from)?,
            },
            _ => return Ok(None),
        };
        Ok(Some(operation))
    }
}

/// An operation of which that is all.
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
            other => return Err(Malformed(format!("layout {other}"))),
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
        let extent = Extent {
            volume: VolumeId(0),
            segment: SegmentId(3),
            offset: 4096,
            length: 1 << 33,
            layout: Layout::Trailing,
        };
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
            Operation::PlaceBlob { digest, extent },
            Operation::ReserveSegmentIds {
                limit: SegmentId(4096),
            },
        ];
        let digest = wide;
        kinds.push(Operation::MarkDamaged { digest, extent });
        kinds.push(Operation::MarkWhole { digest, extent });
        kinds
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
        assert_eq!(bytes.len(), 1297);
        assert_eq!(crate::format::codec::checksum(&bytes), GOLDEN);
    }

    const GOLDEN: u32 = 2_404_338_894;

    /// Guards: a cut or changed transaction is an error, never a panic or a misreading past its end.
    #[test]
    fn every_prefix_is_refused() {
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
            // Only totality is claimed here; the frame's checksum is what notices the change.
            drop(Transaction::decode(&mut Decoder::new(&changed)));
        }
    }

    /// Guards: an unknown operation stops an older reader unless it is marked as one to skip.
    #[test]
    fn unknown_operations_need_leave_to_be_skipped() {
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
