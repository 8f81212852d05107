//! Checkpoint records: the runs that hold all rows up to one LSN, and where replay continues.
//!
//! Layout: FORMAT.md, "Checkpoint records".

use super::codec::{Decoder, Encoder, Malformed, verify_checksum};
use crate::extent::Lsn;

/// Largest record that is read. 64 MiB name more runs than a volume can hold.
pub const RECORD_BYTES_MAX: u64 = 64 << 20;
const VERSION: u32 = 5;
const MAGIC: &[u8; 8] = b"TNCHKPNT";
const FIXED_BYTES: usize = 96;
const RUN_BYTES: usize = 32;

/// One run as a checkpoint names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunRef {
    /// Number of the run's file.
    pub id: u64,
    /// Rows in the run, deletions included.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Checksum of the file's header, which covers the checksums of filter, directory and pages.
    pub crc: u32,
}

/// The record of one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Id of the store.
    pub store_id: [u8; 16],
    /// Number of the checkpoint. Each is higher than the one before; the remainder by three is the slot.
    pub sequence: u64,
    /// Last transaction whose rows are in the runs.
    pub lsn: Lsn,
    /// Journal file that holds the first transaction after `lsn`.
    pub journal_number: u64,
    /// Offset of that transaction's frame in the file.
    pub journal_offset: u64,
    /// First repository id that was never given out.
    pub next_repository: u64,
    /// First segment id that is not reserved.
    pub next_segment: u64,
    /// First number of a run file that was never used.
    pub next_file: u64,
    /// The runs, newest first. Where two have a row of the same key, the newer one counts.
    pub runs: Vec<RunRef>,
}

impl CheckpointRecord {
    /// Encodes the record, checksum last.
    pub fn encode(&self) -> Vec<u8> {
        let length = FIXED_BYTES + self.runs.len() * RUN_BYTES + 4;
        let mut out = Encoder::new();
        out.bytes(MAGIC)
            .u32(VERSION)
            .count(length)
            .bytes(&self.store_id);
        out.u64(self.sequence).u64(self.lsn.0);
        out.u64(self.journal_number).u64(self.journal_offset);
        out.u64(self.next_repository)
            .u64(self.next_segment)
            .u64(self.next_file);
        out.count(self.runs.len()).u32(0);
        for run in &self.runs {
            out.u64(run.id).u64(run.rows).u64(run.bytes);
            out.u32(run.crc).u32(0);
        }
        out.finish_with_checksum(length)
    }

    /// Decodes the record at the start of a slot and ignores the bytes after it.
    ///
    /// # Errors
    /// A record that is torn, damaged or of another version does not decode.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut head = Decoder::new(bytes);
        if head.bytes(8)? != MAGIC {
            return Err(Malformed::new("not a checkpoint"));
        }
        let version = head.u32()?;
        if version != VERSION {
            return Err(Malformed(format!(
                "version {version} of the checkpoint format"
            )));
        }
        let length = head.count()?;
        let mut fields = Decoder::new(verify_checksum(bytes, length)?);
        fields.bytes(16)?;
        let mut record = Self {
            store_id: fields.array()?,
            sequence: fields.counter()?,
            lsn: Lsn(fields.counter()?),
            journal_number: fields.counter()?,
            journal_offset: fields.counter()?,
            next_repository: fields.counter()?,
            next_segment: fields.counter()?,
            next_file: fields.counter()?,
            runs: Vec::new(),
        };
        let count = fields.u32()?;
        fields.zeros(4)?;
        for _ in 0..count {
            let (id, rows, bytes) = (fields.counter()?, fields.counter()?, fields.counter()?);
            let crc = fields.u32()?;
            fields.zeros(4)?;
            record.runs.push(RunRef {
                id,
                rows,
                bytes,
                crc,
            });
        }
        fields.end()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CheckpointRecord {
        CheckpointRecord {
            store_id: [7; 16],
            sequence: 5,
            lsn: Lsn(0x0102_0304_0506_0708),
            journal_number: 3,
            journal_offset: 4096,
            next_repository: 11,
            next_segment: 12,
            next_file: 13,
            runs: vec![RunRef {
                id: 9,
                rows: 2,
                bytes: 8192,
                crc: 0xaabb_ccdd,
            }],
        }
    }

    /// Guards: the bytes on disk do not change by accident.
    #[test]
    fn golden_bytes() {
        let bytes = sample().encode();
        let mut expected = b"TNCHKPNT\x05\0\0\0\x84\0\0\0".to_vec();
        expected.extend([7; 16]);
        expected.extend([5, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        for value in [3_u64, 4096, 11, 12, 13, 1, 9, 2, 8192] {
            expected.extend(value.to_le_bytes());
        }
        expected.extend(b"\xdd\xcc\xbb\xaa\0\0\0\0");
        assert_eq!(bytes.len(), 132);
        assert_eq!(bytes[..128], expected);
        assert_eq!(bytes[128..], crc32fast::hash(&expected).to_le_bytes());
        assert_eq!(CheckpointRecord::decode(&bytes), Ok(sample()));
    }

    /// Guards: a record with any bit flipped, or cut anywhere, does not decode; bytes after it are ignored.
    #[test]
    fn damage_is_noticed() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(CheckpointRecord::decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(
                CheckpointRecord::decode(&bytes[..length]).is_err(),
                "cut at {length}"
            );
        }
        let mut longer = bytes;
        longer.extend([1, 2, 3]);
        assert_eq!(CheckpointRecord::decode(&longer), Ok(sample()));
    }
}
