//! Upload logs: what an unfinished upload resumes from (FORMAT.md, "Upload logs").
//!
//! Owns: [`UploadHeader`], [`UploadCheckpoint`] and [`replay`], which folds a log into its last state. Refuses: I/O.
//!
//! Invariant: a damaged log loses no committed content. The first checkpoint that does not decode ends the log, and the
//! upload resumes further back.

use super::checksum::{ChunkMark, decode_table, encode_table};
use super::codec::{Decoder, Encoder, Malformed, verify_checksum};
use crate::digest::Algorithm;
use crate::extent::SegmentId;
use crate::limits::CHUNK_BYTES;

/// Size of the header in bytes; the first checkpoint follows.
pub const HEADER_BYTES: usize = 4096;

const HEADER_MAGIC: &[u8; 8] = b"TNUPLOAD";
const CHECKPOINT_MAGIC: &[u8; 4] = b"TUCP";
const VERSION: u32 = 1;
/// Bytes of a checkpoint before its mid-state, and of the checksum at its end.
const FIXED_BYTES: usize = 76;
/// End of a checkpoint's named fields; zeros follow.
const NAMED_BYTES: usize = 68;
/// Largest mid-state in bytes (SHA-512 needs 209).
const MID_STATE_BYTES_MAX: usize = 1024;

/// The header of a log: the upload's identity, and the segment that holds its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadHeader {
    /// Id of the store.
    pub store: [u8; 16],
    /// Id of the upload.
    pub upload: [u8; 16],
    /// The dedicated segment that holds its bytes.
    pub segment: SegmentId,
    /// Time at which the upload began, Unix ms.
    pub created_unix_ms: u64,
    /// Repository that the upload belongs to.
    pub repository: String,
    /// Actor that began the upload.
    pub actor: String,
}

/// A state of the upload whose bytes are synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadCheckpoint {
    /// Time of the checkpoint, Unix ms.
    pub unix_ms: u64,
    /// Payload bytes before the checkpoint, and the checksum of the unfinished chunk.
    pub mark: ChunkMark,
    /// Algorithm of the running hash.
    pub algorithm: Algorithm,
    /// Version of the hash's mid-state; 0 if there is none and the content is hashed again from its start.
    pub mid_state_version: u8,
    /// Bytes of the hash's mid-state; empty if the version is 0.
    pub mid_state: Vec<u8>,
    /// Number of the chunk that `checksums` begins with. It replaces all earlier checksums from that chunk on.
    pub first_chunk: u64,
    /// Checksums of whole chunks.
    pub checksums: Vec<u32>,
}

impl UploadHeader {
    /// Encodes the header's block.
    ///
    /// # Panics
    /// If the names are longer than the limits, which are checked where an upload begins.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Encoder::new();
        block
            .bytes(HEADER_MAGIC)
            .u32(VERSION)
            .u32(0)
            .bytes(&self.store)
            .bytes(&self.upload);
        block.u64(self.segment.0).u64(self.created_unix_ms);
        block
            .text(&self.repository)
            .text(&self.actor)
            .finish_with_checksum(HEADER_BYTES)
    }

    /// Decodes a header's block. Short input is malformed, too.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut block = Decoder::new(verify_checksum(bytes, HEADER_BYTES)?);
        if block.bytes(HEADER_MAGIC.len())? != HEADER_MAGIC {
            return Err(Malformed::new("upload log: wrong magic"));
        }
        let version = block.u32()?;
        if version != VERSION {
            return Err(Malformed(format!(
                "upload log: version {version}, this program reads {VERSION}"
            )));
        }
        block.zeros(4)?;
        let header = Self {
            store: block.array()?,
            upload: block.array()?,
            segment: SegmentId(block.counter()?),
            created_unix_ms: block.u64()?,
            repository: block.text()?,
            actor: block.text()?,
        };
        block.zeros(block.remaining())?;
        Ok(header)
    }
}

impl UploadCheckpoint {
    /// Encodes the checkpoint at offset `at` of the log of `upload`.
    pub fn encode(&self, upload: &[u8; 16], at: u64) -> Vec<u8> {
        let length = FIXED_BYTES + self.mid_state.len() + 4 * self.checksums.len();
        let mut block = Encoder::new();
        block
            .bytes(CHECKPOINT_MAGIC)
            .count(length)
            .bytes(upload)
            .u64(at)
            .u64(self.unix_ms);
        block
            .u64(self.mark.length)
            .u32(self.mark.partial)
            .u64(self.first_chunk);
        block
            .count(self.checksums.len())
            .u8(self.algorithm.code())
            .u8(self.mid_state_version);
        block
            .u16(u16::try_from(self.mid_state.len()).unwrap_or_default())
            .pad_to(FIXED_BYTES - 4);
        block
            .bytes(&self.mid_state)
            .bytes(&encode_table(&self.checksums))
            .finish_with_checksum(length)
    }

    /// Decodes the checkpoint at the front of `bytes`, which is at offset `at` of the log of `upload`. Returns its
    /// length in bytes, too.
    pub fn decode(bytes: &[u8], upload: &[u8; 16], at: u64) -> Result<(Self, usize), Malformed> {
        let mut head = Decoder::new(bytes);
        if head.bytes(CHECKPOINT_MAGIC.len())? != CHECKPOINT_MAGIC {
            return Err(Malformed::new("upload checkpoint: wrong magic"));
        }
        let length = head.count()?;
        if length < FIXED_BYTES || length > bytes.len() {
            return Err(Malformed(format!(
                "upload checkpoint: {length} bytes, {} are left",
                bytes.len()
            )));
        }
        let mut block = Decoder::new(verify_checksum(bytes, length)?);
        block.bytes(8)?;
        if block.array::<16>()? != *upload || block.u64()? != at {
            return Err(Malformed::new(
                "upload checkpoint: it belongs to another upload or offset",
            ));
        }
        let unix_ms = block.u64()?;
        let mark = ChunkMark {
            length: block.counter()?,
            partial: block.u32()?,
        };
        let (first_chunk, count) = (block.counter()?, block.count()?);
        let code = block.u8()?;
        let algorithm = Algorithm::from_code(code).ok_or_else(|| {
            Malformed(format!("upload checkpoint: algorithm {code} is not known"))
        })?;
        let mid_state_version = block.u8()?;
        let state_bytes = usize::from(block.u16()?);
        block.zeros(FIXED_BYTES - 4 - NAMED_BYTES)?;
        if state_bytes > MID_STATE_BYTES_MAX {
            return Err(Malformed(format!(
                "upload checkpoint: a mid-state of {state_bytes} bytes"
            )));
        }
        let mid_state = block.bytes(state_bytes)?.to_vec();
        let checksums = decode_table(block.bytes(block.remaining())?);
        let whole = first_chunk.checked_add(count as u64);
        if checksums.len() != count || whole != Some(mark.length / CHUNK_BYTES as u64) {
            return Err(Malformed::new(
                "upload checkpoint: the number of its chunks does not match its offset",
            ));
        }
        let read = Self {
            unix_ms,
            mark,
            algorithm,
            mid_state_version,
            mid_state,
            first_chunk,
            checksums,
        };
        Ok((read, length))
    }
}

/// A log folded into its last state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadLog {
    /// Identity of the upload.
    pub header: UploadHeader,
    /// The last intact checkpoint. Its `checksums` are those of all whole chunks.
    pub last: UploadCheckpoint,
    /// Offset of the next checkpoint.
    pub end: u64,
}

/// Folds a log's bytes into its last state. Returns `None` without an intact header and an intact checkpoint after it.
///
/// The first checkpoint that does not decode ends the log, because an upload may always resume further back.
pub fn replay(bytes: &[u8]) -> Option<UploadLog> {
    let header = UploadHeader::decode(bytes).ok()?;
    let mut end = HEADER_BYTES;
    let mut table: Vec<u32> = Vec::new();
    let mut last = None;
    while let Some(rest) = bytes.get(end..) {
        let Ok((checkpoint, length)) = UploadCheckpoint::decode(rest, &header.upload, end as u64)
        else {
            break;
        };
        let Ok(first) = usize::try_from(checkpoint.first_chunk) else {
            break;
        };
        if first > table.len() {
            break;
        }
        table.truncate(first);
        table.extend(&checkpoint.checksums);
        last = Some(checkpoint);
        end += length;
    }
    let last = UploadCheckpoint {
        first_chunk: 0,
        checksums: table,
        ..last?
    };
    Some(UploadLog {
        header,
        last,
        end: end as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLOAD: [u8; 16] = *b"fedcba9876543210";

    fn header() -> UploadHeader {
        UploadHeader {
            store: *b"0123456789abcdef",
            upload: UPLOAD,
            segment: SegmentId(5),
            created_unix_ms: 1,
            repository: "library/a".to_owned(),
            actor: "me".to_owned(),
        }
    }

    fn checkpoint(first_chunk: u64, checksums: Vec<u32>, partial_bytes: u64) -> UploadCheckpoint {
        let length = (first_chunk + checksums.len() as u64) * 65_536 + partial_bytes;
        UploadCheckpoint {
            unix_ms: 2,
            mark: ChunkMark { length, partial: 9 },
            algorithm: Algorithm::Sha256,
            mid_state_version: 1,
            mid_state: vec![3; 105],
            first_chunk,
            checksums,
        }
    }

    fn log() -> (Vec<u8>, usize) {
        let mut bytes = header().encode();
        bytes.extend(checkpoint(0, vec![1, 2], 7).encode(&UPLOAD, 4096));
        let second = bytes.len();
        bytes.extend(checkpoint(1, vec![20, 30], 0).encode(&UPLOAD, second as u64));
        (bytes, second)
    }

    /// Guards: a later checkpoint replaces chunk checksums from its first chunk on (rollback), and the last state
    /// counts.
    #[test]
    fn the_last_checkpoint_counts() {
        let (bytes, _) = log();
        let read = replay(&bytes).unwrap();
        assert_eq!(read.header, header());
        assert_eq!(read.last, checkpoint(0, vec![1, 20, 30], 0));
        assert_eq!(read.end, bytes.len() as u64);
    }

    /// Guards: a log that is cut anywhere, or has any one bit flipped, gives an earlier state or none.
    #[test]
    fn torn_and_damaged_logs_fall_back() {
        let (bytes, second) = log();
        let (whole, earlier) = (replay(&bytes), replay(&bytes[..second]));
        assert_eq!(earlier.as_ref().unwrap().last, checkpoint(0, vec![1, 2], 7));
        for cut in 0..bytes.len() {
            let read = replay(&bytes[..cut]);
            assert!(read.is_none() || read == earlier, "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = replay(&bad);
            assert!(read.is_none() || read == earlier, "bit {bit}");
            assert_ne!(read, whole, "bit {bit}");
        }
    }
}
