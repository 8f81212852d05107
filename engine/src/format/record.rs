//! Records: payload, checksum table and frame (FORMAT.md, "Segments").
//!
//! Owns: [`RecordFrame`] and the offsets of a record's parts. Refuses: I/O.
//!
//! Invariant: the arithmetic on extents is checked, because they are read from the journal.

use super::checksum::chunk_count;
use super::codec::{Decoder, Encoder, Malformed, checksum, verify_checksum};
use super::segment::HEADER_BYTES;
use crate::digest::{Algorithm, Digest};
use crate::extent::{Extent, Layout, SegmentId, VolumeId};
use crate::limits::LEADING_PAYLOAD_BYTES_MAX;

/// Size of a frame in bytes.
pub const FRAME_BYTES: usize = 128;
/// Alignment of a record's first byte.
pub const RECORD_ALIGN: u64 = 64;
/// Offset of the first payload byte of a dedicated segment.
pub const DEDICATED_PAYLOAD: u64 = HEADER_BYTES as u64;

const MAGIC: &[u8; 4] = b"TREC";
const KIND_BLOB: u16 = 1;

/// Rounds `length` up to a multiple of 64.
pub const fn pad64(length: u64) -> u64 {
    length.next_multiple_of(RECORD_ALIGN)
}

/// Returns the size of the checksum table of a payload of `length` bytes, without padding.
pub const fn table_bytes(length: u64) -> u64 {
    4 * chunk_count(length)
}

/// Returns the bytes from the start of a leading record to its payload.
pub const fn leading_bytes(length: u64) -> u64 {
    FRAME_BYTES as u64 + pad64(table_bytes(length))
}

/// The offsets of a record's parts in its segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordPlaces {
    /// Offset of the frame.
    pub frame: u64,
    /// Offset of the checksum table.
    pub table: u64,
    /// Offset of the first payload byte.
    pub payload: u64,
    /// Offset of the first byte after the record, without padding.
    pub end: u64,
}

impl RecordPlaces {
    /// Returns the offsets of the leading record that starts at `start`.
    pub const fn leading(start: u64, length: u64) -> Self {
        let table = start + FRAME_BYTES as u64;
        let payload = start + leading_bytes(length);
        Self {
            frame: start,
            table,
            payload,
            end: payload + length,
        }
    }

    /// Returns the offsets of the record of a dedicated segment.
    pub const fn trailing(length: u64) -> Self {
        let table = DEDICATED_PAYLOAD + pad64(length);
        let frame = table + pad64(table_bytes(length));
        Self {
            frame,
            table,
            payload: DEDICATED_PAYLOAD,
            end: frame + FRAME_BYTES as u64,
        }
    }

    /// Returns the bytes that the record takes in its segment, padding included.
    pub fn occupied_bytes(&self) -> u64 {
        pad64(self.end).saturating_sub(self.frame.min(self.payload))
    }

    /// Returns the offsets of the record around `extent`.
    ///
    /// # Errors
    /// No record can have this extent.
    pub fn of(extent: &Extent) -> Result<Self, Malformed> {
        let wrong = || Malformed(format!("no record can have {extent}"));
        // Above any file size, and low enough that no sum below overflows.
        if extent.length > 1 << 60 || extent.offset > 1 << 60 {
            return Err(wrong());
        }
        let places = match extent.layout {
            Layout::Leading => {
                if extent.length > LEADING_PAYLOAD_BYTES_MAX {
                    return Err(wrong());
                }
                let start = extent
                    .offset
                    .checked_sub(leading_bytes(extent.length))
                    .ok_or_else(wrong)?;
                if start < HEADER_BYTES as u64 || !start.is_multiple_of(RECORD_ALIGN) {
                    return Err(wrong());
                }
                Self::leading(start, extent.length)
            }
            Layout::Trailing => Self::trailing(extent.length),
        };
        if places.payload == extent.offset {
            Ok(places)
        } else {
            Err(wrong())
        }
    }
}

/// The frame around a blob's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFrame {
    /// Whether the frame is before or after the payload.
    pub layout: Layout,
    /// Segment that holds the record.
    pub segment: SegmentId,
    /// Offset of the frame itself.
    pub offset: u64,
    /// Payload bytes.
    pub length: u64,
    /// Id of the store. Its first 8 bytes are stored.
    pub store: [u8; 16],
    /// The blob's digest.
    pub digest: Digest,
    /// Checksum of the checksum table's bytes.
    pub table_checksum: u32,
}

/// A decoded frame. It has only the first 8 bytes of the store's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundFrame {
    /// Whether the frame is before or after the payload.
    pub layout: Layout,
    /// Segment that the frame names.
    pub segment: SegmentId,
    /// Offset that the frame names.
    pub offset: u64,
    /// Payload bytes.
    pub length: u64,
    /// First 8 bytes of the store id.
    pub store_head: [u8; 8],
    /// The blob's digest.
    pub digest: Digest,
    /// Checksum of the checksum table's bytes.
    pub table_checksum: u32,
}

impl RecordFrame {
    /// Creates the frame of a record whose checksum table has the bytes `table`.
    pub fn new(
        store: [u8; 16],
        digest: Digest,
        extent: &Extent,
        table: &[u8],
    ) -> Result<Self, Malformed> {
        Ok(Self {
            layout: extent.layout,
            segment: extent.segment,
            offset: RecordPlaces::of(extent)?.frame,
            length: extent.length,
            store,
            digest,
            table_checksum: checksum(table),
        })
    }

    /// Encodes the frame.
    pub fn encode(&self) -> Vec<u8> {
        let layout = match self.layout {
            Layout::Leading => 0,
            Layout::Trailing => 1,
        };
        let (store_head, _) = self.store.split_at(8);
        let digest = self.digest.as_bytes();
        let mut block = Encoder::new();
        block
            .bytes(MAGIC)
            .u16(KIND_BLOB)
            .u16(layout)
            .u64(self.segment.0)
            .u64(self.offset);
        block
            .u64(self.length)
            .bytes(store_head)
            .u8(self.digest.algorithm().code());
        block
            .u8(u8::try_from(digest.len()).unwrap_or_default())
            .pad_to(48)
            .bytes(digest);
        block
            .pad_to(112)
            .u32(self.table_checksum)
            .finish_with_checksum(FRAME_BYTES)
    }
}

impl FoundFrame {
    /// Decodes a frame. Short input is malformed, too.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut block = Decoder::new(bytes);
        let magic = block.bytes(MAGIC.len())?;
        if magic != MAGIC {
            return Err(Malformed(format!(
                "record frame: it starts with \"{}\"",
                magic.escape_ascii()
            )));
        }
        let mut block = Decoder::new(verify_checksum(bytes, FRAME_BYTES)?);
        block.bytes(MAGIC.len())?;
        let kind = block.u16()?;
        if kind != KIND_BLOB {
            return Err(Malformed(format!(
                "record frame: kind {kind} is not known to this program"
            )));
        }
        let layout = match block.u16()? {
            0 => Layout::Leading,
            1 => Layout::Trailing,
            other => {
                return Err(Malformed(format!(
                    "record frame: layout {other} does not exist"
                )));
            }
        };
        let segment = SegmentId(block.counter()?);
        let (offset, length) = (block.counter()?, block.counter()?);
        let store_head = block.array()?;
        let (code, digest_length) = (block.u8()?, usize::from(block.u8()?));
        block.zeros(6)?;
        let raw = block.bytes(digest_length)?;
        let digest = Algorithm::from_code(code).and_then(|algorithm| Digest::new(algorithm, raw));
        let Some(digest) = digest else {
            return Err(Malformed(format!(
                "record frame: no digest of algorithm {code} has {digest_length} bytes"
            )));
        };
        block.zeros(64 - digest_length)?;
        let table_checksum = block.u32()?;
        block.zeros(block.remaining())?;
        Ok(Self {
            layout,
            segment,
            offset,
            length,
            store_head,
            digest,
            table_checksum,
        })
    }

    /// Decodes a frame that must be the one of `digest` at `extent` in `store`.
    pub fn decode_of(
        bytes: &[u8],
        store: &[u8; 16],
        digest: &Digest,
        extent: &Extent,
    ) -> Result<Self, Malformed> {
        let places = RecordPlaces::of(extent)?;
        let found = Self::decode(bytes)?;
        if !store.starts_with(&found.store_head) {
            return Err(Malformed::new("record frame: it belongs to another store"));
        }
        if found.segment != extent.segment
            || found.offset != places.frame
            || found.layout != extent.layout
        {
            let (segment, offset) = (found.segment, found.offset);
            return Err(Malformed(format!(
                "record frame: of segment {segment} at {offset}, not of {extent}"
            )));
        }
        if found.digest != *digest || found.length != extent.length {
            let (other, length) = (found.digest, found.length);
            return Err(Malformed(format!(
                "record frame: of {other} with {length} bytes, not of {digest}"
            )));
        }
        Ok(found)
    }

    /// Returns the extent of the payload that the frame describes.
    pub fn extent(&self) -> Result<Extent, Malformed> {
        let offset = match self.layout {
            Layout::Leading if self.offset <= 1 << 60 && self.length <= 1 << 60 => {
                RecordPlaces::leading(self.offset, self.length).payload
            }
            Layout::Leading | Layout::Trailing => DEDICATED_PAYLOAD,
        };
        let (segment, length, layout) = (self.segment, self.length, self.layout);
        let extent = Extent {
            volume: VolumeId::default(),
            segment,
            offset,
            length,
            layout,
        };
        if RecordPlaces::of(&extent)?.frame == self.offset {
            return Ok(extent);
        }
        Err(Malformed(format!(
            "record frame: {extent} has no frame at {}",
            self.offset
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64, layout: Layout) -> Extent {
        Extent {
            volume: VolumeId(0),
            segment: SegmentId(7),
            offset,
            length,
            layout,
        }
    }

    fn frame() -> RecordFrame {
        let digest = Digest::of(Algorithm::Sha256, b"abc");
        let extent = extent(4096 + 128 + 64, 3, Layout::Leading);
        RecordFrame::new(*b"0123456789abcdef", digest, &extent, &[1, 2, 3, 4]).unwrap()
    }

    /// Guards: the layout of FORMAT.md, byte for byte.
    #[test]
    fn golden_bytes() {
        let mut expected = [0_u8; 128];
        expected[..4].copy_from_slice(b"TREC");
        expected[4] = 1;
        expected[8] = 7;
        expected[17] = 0x10;
        expected[24] = 3;
        expected[32..40].copy_from_slice(b"01234567");
        expected[40..42].copy_from_slice(&[1, 32]);
        expected[48..80].copy_from_slice(Digest::of(Algorithm::Sha256, b"abc").as_bytes());
        expected[112..116].copy_from_slice(&crc32fast::hash(&[1, 2, 3, 4]).to_le_bytes());
        let crc = crc32fast::hash(&expected[..124]).to_le_bytes();
        expected[124..].copy_from_slice(&crc);
        assert_eq!(frame().encode(), expected);
    }

    /// Guards: every flipped bit of a frame is detected, whatever digest length it claims.
    #[test]
    fn every_bit_flip_is_noticed() {
        let block = frame().encode();
        FoundFrame::decode(&block).unwrap();
        for bit in 0..block.len() * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(FoundFrame::decode(&bad).is_err(), "bit {bit}");
        }
    }

    /// Guards: an intact frame of another place, blob or store is rejected (misdirected writes).
    #[test]
    fn a_frame_of_another_place_is_rejected() {
        let (block, frame) = (frame().encode(), frame());
        let home = extent(4096 + 128 + 64, 3, Layout::Leading);
        let check = |store: [u8; 16], digest: &Digest, extent: &Extent| {
            FoundFrame::decode_of(&block, &store, digest, extent)
        };
        assert_eq!(
            check(frame.store, &frame.digest, &home).unwrap().extent(),
            Ok(home)
        );
        assert!(check([0; 16], &frame.digest, &home).is_err());
        assert!(check(frame.store, &Digest::of(Algorithm::Sha256, b"x"), &home).is_err());
        let (next, longer) = (
            extent(8192 + 192, 3, Layout::Leading),
            extent(4288, 4, Layout::Leading),
        );
        let elsewhere = Extent {
            segment: SegmentId(8),
            ..home
        };
        for wrong in [next, longer, elsewhere, extent(4096, 3, Layout::Trailing)] {
            assert!(
                check(frame.store, &frame.digest, &wrong).is_err(),
                "{wrong}"
            );
        }
    }

    /// Guards: extents that no record can have are rejected, whatever their numbers.
    #[test]
    fn impossible_extents_are_rejected() {
        for (offset, length) in [
            (0, 0),
            (64, 3),
            (4097 + 192, 3),
            (u64::MAX, u64::MAX),
            (4096, u64::MAX),
        ] {
            for layout in [Layout::Leading, Layout::Trailing] {
                assert!(
                    RecordPlaces::of(&extent(offset, length, layout)).is_err(),
                    "{offset} {length}"
                );
            }
        }
        for (length, holds) in [(1 << 30, true), ((1 << 30) + 1, false)] {
            let offset = 4096 + leading_bytes(length);
            let places = RecordPlaces::of(&extent(offset, length, Layout::Leading));
            assert_eq!(places.is_ok(), holds, "{length}");
        }
        let places = RecordPlaces::of(&extent(4096, 65_537, Layout::Trailing)).unwrap();
        assert_eq!(
            (places.table, places.frame),
            (4096 + 65_600, 4096 + 65_600 + 64)
        );
        assert_eq!(places.end, places.frame + 128);
    }
}
