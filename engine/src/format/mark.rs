//! Marks: how far the frames of a journal file are durable.
//!
//! Layout: FORMAT.md, "Marks".
//!
//! Invariant: a mark is valid from the moment it is written, because it covers only frames whose sync returned.

use super::codec::{Decoder, Encoder, Malformed, verify_checksum};
use super::journal::HEADER_BYTES;
use crate::extent::Lsn;
use crate::limits::JOURNAL_BLOCK_BYTES;

/// Number of marks in a file. They are written alternately, so that one is whole while the other is written.
pub const MARKS: usize = 2;
/// Offset of the first frame of a file, after its header and its marks.
pub const FRAMES_START: u64 = ((1 + MARKS) * JOURNAL_BLOCK_BYTES) as u64;
const MARK_BYTES: usize = 64;
const MAGIC: &[u8; 4] = b"TMRK";
const FLAG_SEALED: u32 = 1;

/// How far a journal file was durable when the mark was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Whether the file is finished. Its successor was durable before such a mark was written.
    pub sealed: bool,
    /// The file's nonce.
    pub nonce: u64,
    /// End of the frames that were durable.
    pub offset: u64,
    /// LSN of the first transaction of the last durable frame.
    pub lsn: Lsn,
}

impl Mark {
    /// Encodes the block of the mark.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Encoder::new()
            .bytes(MAGIC)
            .u32(if self.sealed { FLAG_SEALED } else { 0 })
            .u64(self.nonce)
            .u64(self.offset)
            .u64(self.lsn.0)
            .finish_with_checksum(MARK_BYTES);
        block.resize(JOURNAL_BLOCK_BYTES, 0);
        block
    }

    /// Decodes the mark in `block` of the file with `nonce`.
    pub fn decode(block: &[u8], nonce: u64) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(verify_checksum(block, MARK_BYTES)?);
        if decoder.array::<4>()? != *MAGIC {
            return Err(Malformed::new("not a mark"));
        }
        let flags = decoder.u32()?;
        let mark = Self {
            sealed: flags == FLAG_SEALED,
            nonce: decoder.u64()?,
            offset: decoder.counter()?,
            lsn: Lsn(decoder.counter()?),
        };
        decoder.zeros(decoder.remaining())?;
        Decoder::new(block.get(MARK_BYTES..).unwrap_or_default())
            .zeros(block.len().saturating_sub(MARK_BYTES))?;
        if flags > FLAG_SEALED {
            return Err(Malformed(format!("mark flags {flags:#x}")));
        }
        if mark.nonce != nonce {
            return Err(Malformed::new("the mark belongs to another journal file"));
        }
        Ok(mark)
    }

    /// Returns the offset of the mark with this number.
    pub fn place(number: usize) -> u64 {
        (HEADER_BYTES + number % MARKS * JOURNAL_BLOCK_BYTES) as u64
    }

    /// Returns the farthest intact mark in the bytes of a file.
    pub fn farthest(file: &[u8], nonce: u64) -> Option<Self> {
        let whole = blocks(file).filter_map(|block| Self::decode(block, nonce).ok());
        whole.max_by_key(|mark| (mark.offset, mark.sealed))
    }

    /// Returns the offset of the first mark that does not decode. In a file that is not `sealed`, an empty place is
    /// accepted.
    pub fn first_bad(file: &[u8], nonce: u64, sealed: bool) -> Option<u64> {
        let good = |block: &[u8]| match Self::decode(block, nonce) {
            Ok(mark) => mark.sealed || !sealed,
            Err(_) => !sealed && block.iter().all(|byte| *byte == 0),
        };
        let bad = blocks(file).position(|block| !good(block))?;
        Some(Self::place(bad))
    }
}

fn blocks(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..MARKS).map(move |number| {
        let from = HEADER_BYTES + number * JOURNAL_BLOCK_BYTES;
        file.get(from..from + JOURNAL_BLOCK_BYTES)
            .unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(offset: u64, sealed: bool) -> Mark {
        Mark {
            sealed,
            nonce: 77,
            offset,
            lsn: Lsn(5),
        }
    }

    /// Guards: the layout, and that every bit of the block is covered.
    #[test]
    fn golden_bytes_and_every_flipped_bit() {
        let block = mark(0x5000, true).encode();
        assert_eq!(&block[..8], b"TMRK\x01\0\0\0");
        assert_eq!(&block[16..20], &[0, 0x50, 0, 0]);
        assert_eq!(Mark::decode(&block, 77), Ok(mark(0x5000, true)));
        assert!(Mark::decode(&block, 78).is_err());
        for bit in 0..block.len() * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Mark::decode(&flipped, 77).is_err(), "bit {bit}");
        }
    }

    /// Guards: the farthest intact mark counts, and at the same offset a sealed one before an open one.
    #[test]
    fn the_farthest_mark_counts() {
        let file = |first: &Mark, second: &Mark| {
            let mut bytes = vec![0; HEADER_BYTES];
            bytes.extend(first.encode());
            bytes.extend(second.encode());
            bytes
        };
        let far = file(&mark(8, false), &mark(9, false));
        assert_eq!(Mark::farthest(&far, 77), Some(mark(9, false)));
        let mut torn = far.clone();
        torn[HEADER_BYTES + JOURNAL_BLOCK_BYTES] ^= 1;
        assert_eq!(Mark::farthest(&torn, 77), Some(mark(8, false)));
        assert_eq!(Mark::first_bad(&far, 77, false), None);
        assert_eq!(Mark::first_bad(&far, 77, true), Some(4096));
        assert_eq!(Mark::first_bad(&torn, 77, false), Some(8192));
        let sealed = file(&mark(9, true), &mark(9, false));
        assert_eq!(Mark::farthest(&sealed, 77), Some(mark(9, true)));
        assert_eq!(Mark::farthest(&sealed[..HEADER_BYTES], 77), None);
    }
}
