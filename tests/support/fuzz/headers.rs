//! Fuzz target for structures with fixed fields: superblock, checkpoint record, and the headers of every kind of file,
//! frame and record.
//!
//! The input: which structure (one byte, whose highest bit requests a right checksum), then its bytes. Checked: an
//! accepted structure is encoded to the same bytes.

use tonnage_engine::format::checkpoint::CheckpointRecord;
use tonnage_engine::format::checksum::{ChunkChecksums, ChunkMark, check_chunks, decode_table};
use tonnage_engine::format::journal::{FrameHeader, JournalHeader};
use tonnage_engine::format::mark::Mark;
use tonnage_engine::format::record::{FoundFrame, RecordFrame, RecordPlaces};
use tonnage_engine::format::run::{FileHeader, decode_directory, encode_directory};
use tonnage_engine::format::segment::SegmentHeader;
use tonnage_engine::format::superblock::{COPY_BYTES, Decoded, Superblock};
use tonnage_engine::format::upload_log::UploadHeader;
use tonnage_engine::{Extent, Layout, SegmentId, VolumeId};

use super::input::Input;
use super::seal;

const BLOCK: usize = 4096;

/// Runs the target on one structure.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let which = input.byte();
    let sealed = which & 0x80 != 0;
    let rest = input.all();
    let shaped = |length: usize| {
        if sealed {
            seal::block(rest, length)
        } else {
            rest.to_vec()
        }
    };
    match which & 0x7f {
        0 => superblock(rest, sealed),
        1 => checkpoint(&shaped(rest.len() + 4)),
        2 => segment(&shaped(BLOCK)),
        3 => record(&shaped(128)),
        4 => run_header(&shaped(BLOCK)),
        5 => upload_header(&shaped(BLOCK)),
        6 => journal_header(&shaped(BLOCK)),
        7 => frame_header(&shaped(64)),
        8 => directory(rest),
        9 => places(rest),
        10 => chunks(rest),
        11 => mark(&shaped(64)),
        _ => {}
    }
}

fn superblock(rest: &[u8], sealed: bool) {
    let mut file = rest.to_vec();
    if sealed {
        // Four copies, each from a quarter of the input.
        let quarter = rest.len().div_ceil(4).max(1);
        file = rest
            .chunks(quarter)
            .flat_map(|copy| seal::block(copy, COPY_BYTES))
            .collect();
    }
    if let Decoded::Usable {
        superblock,
        damaged_copies,
        ..
    } = Superblock::decode(&file)
    {
        assert!(damaged_copies.len() < 4);
        let again = Superblock::decode(&superblock.encode());
        assert!(matches!(again, Decoded::Usable { superblock: again, .. } if again == superblock));
    }
}

fn checkpoint(bytes: &[u8]) {
    // The record's own length decides where its checksum is.
    let mut bytes = bytes.to_vec();
    if let Some(place) = bytes.get_mut(12..16) {
        let length = u32::from_le_bytes(place.try_into().expect("four bytes"));
        if length == 0 {
            let whole = u32::try_from(bytes.len()).expect("inputs are small");
            bytes[12..16].copy_from_slice(&whole.to_le_bytes());
            let length = bytes.len();
            bytes = seal::block(&bytes, length);
        }
    }
    if let Ok(record) = CheckpointRecord::decode(&bytes) {
        assert!(bytes.starts_with(&record.encode()));
    }
}

fn segment(bytes: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(bytes) {
        assert!(SegmentHeader::is_whole(bytes));
        assert_eq!(header.encode(), bytes[..BLOCK]);
        let again = SegmentHeader::decode_of(bytes, &header.store, header.segment);
        assert_eq!(again, Ok(header));
    }
}

fn record(bytes: &[u8]) {
    let Ok(found) = FoundFrame::decode(bytes) else {
        return;
    };
    let mut store = [0; 16];
    store[..8].copy_from_slice(&found.store_head);
    let frame = RecordFrame {
        layout: found.layout,
        segment: found.segment,
        offset: found.offset,
        length: found.length,
        store,
        digest: found.digest,
        table_checksum: found.table_checksum,
    };
    assert_eq!(frame.encode(), bytes[..128]);
    let extent = Extent {
        volume: VolumeId(0),
        segment: found.segment,
        offset: match found.layout {
            Layout::Trailing => BLOCK as u64,
            Layout::Leading => found.offset.wrapping_add(192),
        },
        length: found.length,
        layout: found.layout,
    };
    if let Ok(again) = FoundFrame::decode_of(bytes, &store, &found.digest, &extent) {
        assert_eq!(again, found);
    }
}

fn run_header(bytes: &[u8]) {
    if let Ok(header) = FileHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..BLOCK]);
    }
}

fn upload_header(bytes: &[u8]) {
    if let Ok(header) = UploadHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..BLOCK]);
    }
}

fn journal_header(bytes: &[u8]) {
    let mut input = Input::new(bytes.get(16..).unwrap_or_default());
    let (store, number) = (input.array(), u64::from_le_bytes(input.array()));
    if let Ok(header) = JournalHeader::decode(bytes, &store, number) {
        assert_eq!(header.encode(), bytes[..BLOCK]);
    }
}

fn mark(bytes: &[u8]) {
    let nonce = Input::new(bytes.get(8..).unwrap_or_default()).array();
    let block = [bytes.get(..64).unwrap_or_default(), &[0; BLOCK - 64]].concat();
    if let Ok(mark) = Mark::decode(&block, u64::from_le_bytes(nonce)) {
        assert_eq!(mark.encode(), block);
    }
}

fn frame_header(bytes: &[u8]) {
    let mut input = Input::new(bytes.get(8..).unwrap_or_default());
    let (nonce, offset) = (
        u64::from_le_bytes(input.array()),
        u64::from_le_bytes(input.array()),
    );
    if let Ok(header) = FrameHeader::decode(bytes, nonce, offset) {
        assert_eq!(header.encode(), bytes[..64]);
        let crc = u32::from_le_bytes(bytes[60..64].try_into().expect("four bytes"));
        assert_eq!(header.crc(), crc);
    }
}

fn directory(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let pages = input.number();
    let rest = input.all();
    if let Ok(entries) = decode_directory(rest, pages) {
        assert_eq!(encode_directory(&entries), rest);
    }
}

/// Checks where a record lies around an extent, for any extent.
fn places(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let extent = Extent {
        volume: VolumeId(input.word()),
        segment: SegmentId(u64::from_le_bytes(input.array())),
        offset: u64::from_le_bytes(input.array()),
        length: u64::from_le_bytes(input.array()),
        layout: if input.byte() & 1 == 0 {
            Layout::Leading
        } else {
            Layout::Trailing
        },
    };
    if let Ok(places) = RecordPlaces::of(&extent) {
        assert_eq!(places.payload, extent.offset);
        assert!(places.frame >= BLOCK as u64 && places.end > places.frame);
        assert!(places.end >= extent.offset + extent.length);
    }
}

/// Checks a checksum table, and the continuation in the middle of a payload.
fn chunks(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mark = ChunkMark {
        length: u64::from_le_bytes(input.array()),
        partial: input.number(),
    };
    let table = decode_table(input.piece(64));
    let payload = input.all();
    if check_chunks(payload, &table).is_ok() {
        assert!(payload.is_empty() || !table.is_empty());
    }
    if let Some(mut resumed) = ChunkChecksums::resume(table, mark) {
        assert_eq!(resumed.length(), mark.length);
        resumed.update(payload);
        let length = mark.length + payload.len() as u64;
        assert_eq!(resumed.length(), length);
        assert_eq!(resumed.table().len() as u64, length.div_ceil(64 << 10));
        resumed.rewind(mark);
        assert_eq!(resumed.length(), mark.length);
    }
}
