//! Headers of journal files and of frames.
//!
//! Layout: FORMAT.md, "Journal". A header is checked against the place it was read from, so that a misdirected or
//! recycled block never decodes.

use super::codec::{Decoder, Encoder, Malformed, checksum, verify_checksum};
use crate::extent::Lsn;
use crate::limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_TRANSACTIONS_MAX, JOURNAL_BLOCK_BYTES};

/// Size of a file's header; marks and frames follow.
pub const HEADER_BYTES: usize = JOURNAL_BLOCK_BYTES;
/// Size of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Bytes of the named fields of a file's header; zeros and its checksum follow.
const FIELDS_BYTES: usize = 88;
const MAGIC: &[u8; 8] = b"TNJOURNL";
const VERSION: u32 = 1;
const FRAME_MAGIC: &[u8; 4] = b"TFRM";
const FLAG_CLOSE: u32 = 1;

/// Header of a journal file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalHeader {
    /// Id of the store.
    pub store_id: [u8; 16],
    /// Number of the file. Numbers are consecutive.
    pub number: u64,
    /// Epoch; grows by one at every open for writing.
    pub epoch: u64,
    /// Random number that every frame of this file carries.
    pub nonce: u64,
    /// LSN of the first transaction; no later one is lower.
    pub first_lsn: Lsn,
    /// End of the frames of the preceding file; 0 in the first file.
    pub previous_end: u64,
    /// Creation time.
    pub created_unix_ms: u64,
    /// Size in bytes that the file was created with. Only a file with a successor may be shorter.
    pub file_bytes: u64,
}

impl JournalHeader {
    /// Encodes the header block.
    pub fn encode(&self) -> Vec<u8> {
        Encoder::new()
            .bytes(MAGIC)
            .u32(VERSION)
            .u32(0)
            .bytes(&self.store_id)
            .u64(self.number)
            .u64(self.epoch)
            .u64(self.nonce)
            .u64(self.first_lsn.0)
            .u64(self.previous_end)
            .u64(self.created_unix_ms)
            .u64(self.file_bytes)
            .finish_with_checksum(HEADER_BYTES)
    }

    /// Decodes the header of file `number` of store `store_id`.
    pub fn decode(bytes: &[u8], store_id: &[u8; 16], number: u64) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(verify_checksum(bytes, HEADER_BYTES)?);
        if decoder.array::<8>()? != *MAGIC {
            return Err(Malformed::new("not a journal file"));
        }
        let version = decoder.u32()?;
        if version != VERSION {
            return Err(Malformed(format!("journal version {version}")));
        }
        decoder.zeros(4)?;
        let header = Self {
            store_id: decoder.array()?,
            number: decoder.counter()?,
            epoch: decoder.counter()?,
            nonce: decoder.u64()?,
            first_lsn: Lsn(decoder.counter()?),
            previous_end: decoder.counter()?,
            created_unix_ms: decoder.u64()?,
            file_bytes: decoder.counter()?,
        };
        decoder.zeros(decoder.remaining())?;
        if header.store_id != *store_id {
            return Err(Malformed::new("the journal file belongs to another store"));
        }
        if header.number != number {
            return Err(Malformed(format!(
                "journal file {} under the name of {number}",
                header.number
            )));
        }
        Ok(header)
    }

    /// Whether `bytes`, which do not decode, may be a torn write of the header of file `number` over zeros.
    ///
    /// Then each byte is either zero or the header's. Any other byte was written there later, or belongs to no header.
    pub fn may_be_torn(bytes: &[u8], store_id: &[u8; 16], number: u64) -> bool {
        let known = Encoder::new()
            .bytes(MAGIC)
            .u32(VERSION)
            .u32(0)
            .bytes(store_id)
            .u64(number)
            .finish();
        let reserved = bytes.get(FIELDS_BYTES..HEADER_BYTES - 4);
        let reserved = reserved.or(bytes.get(FIELDS_BYTES..)).unwrap_or_default();
        bytes
            .iter()
            .zip(known)
            .all(|(found, own)| *found == 0 || *found == own)
            && reserved.iter().all(|byte| *byte == 0)
    }
}

/// Header of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether the store was closed cleanly here; such a frame has no transactions.
    pub close: bool,
    /// The file's nonce.
    pub nonce: u64,
    /// Offset of the frame in the file.
    pub offset: u64,
    /// LSN of the first transaction.
    pub first_lsn: Lsn,
    /// Transactions in the frame.
    pub transactions: u32,
    /// Size of the payload in bytes.
    pub payload_bytes: u32,
    /// Checksum of the payload.
    pub payload_crc: u32,
    /// Checksum of the previous frame's header; 0 in the first frame.
    pub previous_crc: u32,
}

impl FrameHeader {
    /// Encodes the header.
    pub fn encode(&self) -> Vec<u8> {
        Encoder::new()
            .bytes(FRAME_MAGIC)
            .u32(if self.close { FLAG_CLOSE } else { 0 })
            .u64(self.nonce)
            .u64(self.offset)
            .u64(self.first_lsn.0)
            .u32(self.transactions)
            .u32(self.payload_bytes)
            .u32(self.payload_crc)
            .u32(self.previous_crc)
            .finish_with_checksum(FRAME_HEADER_BYTES)
    }

    /// Decodes the header of the frame at `offset` of the file with `nonce`.
    pub fn decode(bytes: &[u8], nonce: u64, offset: u64) -> Result<Self, Malformed> {
        let header = Self::decode_anywhere(bytes, nonce)?;
        if header.offset == offset {
            Ok(header)
        } else {
            Err(Malformed(format!(
                "the frame belongs at offset {}",
                header.offset
            )))
        }
    }

    /// Decodes the header of a frame of the file with `nonce`, whatever offset it names.
    pub fn decode_anywhere(bytes: &[u8], nonce: u64) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(verify_checksum(bytes, FRAME_HEADER_BYTES)?);
        if decoder.array::<4>()? != *FRAME_MAGIC {
            return Err(Malformed::new("not a frame"));
        }
        let flags = decoder.u32()?;
        let header = Self {
            close: flags == FLAG_CLOSE,
            nonce: decoder.u64()?,
            offset: decoder.counter()?,
            first_lsn: Lsn(decoder.counter()?),
            transactions: decoder.u32()?,
            payload_bytes: decoder.u32()?,
            payload_crc: decoder.u32()?,
            previous_crc: decoder.u32()?,
        };
        decoder.zeros(decoder.remaining())?;
        if flags > FLAG_CLOSE {
            return Err(Malformed(format!("frame flags {flags:#x}")));
        }
        if header.nonce != nonce {
            return Err(Malformed::new("the frame belongs to another journal file"));
        }
        let payload = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
        let transactions = usize::try_from(header.transactions).unwrap_or(usize::MAX);
        if payload > FRAME_PAYLOAD_BYTES_MAX || transactions > FRAME_TRANSACTIONS_MAX {
            return Err(Malformed(format!(
                "a frame of {payload} bytes and {transactions} transactions"
            )));
        }
        Ok(header)
    }

    /// Returns the header's own checksum, which the next frame repeats.
    pub fn crc(&self) -> u32 {
        let bytes = self.encode();
        bytes.get(..FRAME_HEADER_BYTES - 4).map_or(0, checksum)
    }
}

/// Returns the size on disk of a frame with `payload_bytes` of payload, padding included.
pub fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(JOURNAL_BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> JournalHeader {
        JournalHeader {
            store_id: [3; 16],
            number: 5,
            epoch: 2,
            nonce: 0x1122_3344_5566_7788,
            first_lsn: Lsn(9000),
            previous_end: 8192,
            created_unix_ms: 1,
            file_bytes: 1 << 20,
        }
    }

    fn frame() -> FrameHeader {
        FrameHeader {
            close: false,
            nonce: 77,
            offset: 4096,
            first_lsn: Lsn(12),
            transactions: 3,
            payload_bytes: 100,
            payload_crc: 0xdead_beef,
            previous_crc: 0,
        }
    }

    /// Guards: the layout of both headers, field by field.
    #[test]
    fn golden_bytes() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(&bytes[..16], b"TNJOURNL\x01\0\0\0\0\0\0\0");
        assert_eq!(
            &bytes[48..56],
            &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]
        );
        assert_eq!(JournalHeader::decode(&bytes, &[3; 16], 5), Ok(header()));
        let bytes = frame().encode();
        assert_eq!(&bytes[..8], b"TFRM\0\0\0\0");
        assert_eq!(&bytes[40..44], &[0xef, 0xbe, 0xad, 0xde]);
        assert_eq!(FrameHeader::decode(&bytes, 77, 4096), Ok(frame()));
    }

    /// Guards: a header decodes only in its own store, file and place.
    #[test]
    fn misplaced_headers_are_rejected() {
        let bytes = header().encode();
        assert!(JournalHeader::decode(&bytes, &[4; 16], 5).is_err());
        assert!(JournalHeader::decode(&bytes, &[3; 16], 6).is_err());
        let bytes = frame().encode();
        assert!(FrameHeader::decode(&bytes, 78, 4096).is_err());
        assert!(FrameHeader::decode(&bytes, 77, 8192).is_err());
    }

    /// Guards: a header with any part missing may be torn; one over which something else was written is not.
    #[test]
    fn a_torn_header_differs_from_an_overwritten_one() {
        let whole = header().encode();
        let torn = |bytes: &[u8]| JournalHeader::may_be_torn(bytes, &[3; 16], 5);
        for cut in 0..whole.len() {
            let mut begin = whole.clone();
            begin[cut..].fill(0);
            let mut end = whole.clone();
            end[..cut].fill(0);
            assert!(
                torn(&begin) && torn(&end) && torn(&whole[..cut]),
                "cut at {cut}"
            );
        }
        for at in (0..whole.len()).step_by(512) {
            let mut over = whole.clone();
            over[at..at + FRAME_HEADER_BYTES].copy_from_slice(&frame().encode());
            assert!(!torn(&over), "a frame at byte {at}");
        }
        assert!(!JournalHeader::may_be_torn(&whole, &[3; 16], 6));
    }

    /// Guards: every bit of both headers is covered.
    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = frame().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                FrameHeader::decode(&flipped, 77, 4096).is_err(),
                "frame bit {bit}"
            );
        }
        let bytes = header().encode();
        for bit in (0..bytes.len() * 8).step_by(7) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                JournalHeader::decode(&flipped, &[3; 16], 5).is_err(),
                "header bit {bit}"
            );
        }
    }
}
