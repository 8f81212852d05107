//! The header of a segment file (FORMAT.md, "Segments").
//!
//! Owns: [`SegmentHeader`], [`SegmentClass`]. Refuses: records (`format::record`).

use bytes::Bytes;

use super::codec::{Decoder, Encoder, Malformed, verify_checksum};
use crate::extent::{SegmentId, VolumeId};
use crate::limits::CHUNK_BYTES;

/// Size of the header in bytes. The first record, or a dedicated segment's payload, follows.
pub const HEADER_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"TNSEGMNT";
const VERSION: u32 = 1;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentClass {
    /// Many small blobs.
    Shared,
    /// One large blob.
    Dedicated,
}

/// The header of a segment file: its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Class of the segment.
    pub class: SegmentClass,
    /// Id of the store.
    pub store: [u8; 16],
    /// Number of the segment, which is also in the file's name.
    pub segment: SegmentId,
    /// Volume that holds the file.
    pub volume: VolumeId,
}

impl SegmentHeader {
    /// Encodes the header's block.
    pub fn encode(&self) -> Bytes {
        let class = match self.class {
            SegmentClass::Shared => 1,
            SegmentClass::Dedicated => 2,
        };
        let mut block = Encoder::new();
        block
            .bytes(MAGIC)
            .u32(VERSION)
            .u32(class)
            .bytes(&self.store);
        block
            .u64(self.segment.0)
            .u16(self.volume.0)
            .pad_to(48)
            .u32(CHUNK_WORD);
        Bytes::from(block.finish_with_checksum(HEADER_BYTES))
    }

    /// Decodes a header's block. Short input is malformed, too.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut block = Decoder::new(bytes);
        let magic = block.bytes(MAGIC.len())?;
        if magic != MAGIC {
            return Err(Malformed(format!(
                "segment header: it starts with \"{}\"",
                magic.escape_ascii()
            )));
        }
        let mut block = Decoder::new(verify_checksum(bytes, HEADER_BYTES)?);
        block.bytes(MAGIC.len())?;
        let version = block.u32()?;
        if version != VERSION {
            return Err(Malformed(format!(
                "segment header: version {version}, this program reads {VERSION}"
            )));
        }
        let class = match block.u32()? {
            1 => SegmentClass::Shared,
            2 => SegmentClass::Dedicated,
            other => {
                return Err(Malformed(format!(
                    "segment header: class {other} does not exist"
                )));
            }
        };
        let (store, segment) = (block.array()?, SegmentId(block.counter()?));
        let volume = VolumeId(block.u16()?);
        block.zeros(6)?;
        let chunk = block.u32()?;
        if chunk != CHUNK_WORD {
            return Err(Malformed(format!(
                "segment header: chunks of {chunk} bytes, not {CHUNK_WORD}"
            )));
        }
        block.zeros(block.remaining())?;
        Ok(Self {
            class,
            store,
            segment,
            volume,
        })
    }

    /// Whether the block's checksum matches. Then any other fault of the block is not bit rot.
    pub fn is_whole(bytes: &[u8]) -> bool {
        verify_checksum(bytes, HEADER_BYTES).is_ok()
    }

    /// Decodes a header's block that must be that of `segment` in `store`.
    pub fn decode_of(
        bytes: &[u8],
        store: &[u8; 16],
        segment: SegmentId,
    ) -> Result<Self, Malformed> {
        let header = Self::decode(bytes)?;
        if header.store != *store {
            return Err(Malformed::new(
                "segment header: it belongs to another store",
            ));
        }
        if header.segment != segment {
            return Err(Malformed(format!(
                "segment header: it belongs to segment {}, not {segment}",
                header.segment
            )));
        }
        Ok(header)
    }
}

const CHUNK_WORD: u32 = 65_536;
const _: () = assert!(CHUNK_WORD as usize == CHUNK_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            class: SegmentClass::Dedicated,
            store: *b"0123456789abcdef",
            segment: SegmentId(0x0102_0304),
            volume: VolumeId(0),
        }
    }

    /// Guards: the layout of FORMAT.md, byte for byte; stored segments depend on it.
    #[test]
    fn golden_bytes() {
        let block = header().encode();
        let mut expected = vec![0; 4096];
        expected[..8].copy_from_slice(b"TNSEGMNT");
        expected[8] = 1;
        expected[12] = 2;
        expected[16..32].copy_from_slice(b"0123456789abcdef");
        expected[32..36].copy_from_slice(&[4, 3, 2, 1]);
        expected[50] = 1;
        let crc = crc32fast::hash(&expected[..4092]).to_le_bytes();
        expected[4092..].copy_from_slice(&crc);
        assert_eq!(block, expected);
        assert_eq!(SegmentHeader::decode(&block), Ok(header()));
    }

    /// Guards: every flipped bit of a header is detected, and a header of another store or segment is rejected.
    #[test]
    fn every_bit_flip_is_noticed() {
        let block = header().encode();
        for bit in 0..block.len() * 8 {
            let mut bad = block.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
        assert!(SegmentHeader::decode(&block[..4095]).is_err());
        let at_home = |store: [u8; 16], segment| SegmentHeader::decode_of(&block, &store, segment);
        assert!(at_home(header().store, header().segment).is_ok());
        assert!(at_home([0; 16], header().segment).is_err());
        assert!(at_home(header().store, SegmentId(9)).is_err());
    }
}
