//! Fuzz target for one file of the journal: its frames, their transactions, and the rows that these produce.
//!
//! The input: a byte of choices, then the bytes after the file's marks, or (lowest bit) pieces that become the payloads
//! of valid frames. Checked: what is read is encoded and read again as the same, offsets ascend, and each transaction
//! gives rows or an error.

use tonnage_engine::Lsn;
use tonnage_engine::format::codec::{Decoder, Encoder, checksum};
use tonnage_engine::format::journal::{FrameHeader, JournalHeader, frame_bytes};
use tonnage_engine::format::mark::FRAMES_START;
use tonnage_engine::format::scan;
use tonnage_engine::format::transaction::Transaction;
use tonnage_engine::limits::ORIGIN_BYTES_MAX;

use super::input::Input;
use super::opened;

/// The nonce of the file, for seeds.
pub const NONCE: u64 = 0x0102_0304_0506_0708;
const FILE: &str = "journal/0000000000000001.journal";
const BUILD: u8 = 1;
const ENDS: u8 = 2;
/// The maximum number of frames that are built.
const FRAMES_MAX: usize = 64;

/// Runs the target on one file.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choices = input.byte();
    let header = header();
    let mut file = header.encode();
    file.resize(FRAMES_START as usize, 0);
    if choices & BUILD == 0 {
        file.extend(input.all());
    } else {
        build(&mut file, input);
    }
    let end = (choices & ENDS != 0).then_some(file.len() as u64);
    let mut transactions = 0;
    let scanned = scan::frames(&file, &header, FRAMES_START, end, &mut |read| {
        written_again(&read);
        transactions += 1;
        Ok(())
    });
    if let Ok(scanned) = &scanned {
        assert!(scanned.end >= FRAMES_START && scanned.end <= file.len() as u64);
        assert_eq!(scanned.last_lsn.is_some(), transactions > 0);
    }
    let _ = scan::first_nonzero(&file, end.unwrap_or_default());
    let image = opened::image(header.store_id, [(FILE, &*file)]);
    // A transaction that cannot be applied is corrupt, and the store does not open.
    if let (Some(report), Ok(_), None) = (opened::look(&image), scanned, end) {
        assert_eq!(report.replayed, transactions);
    }
}

fn header() -> JournalHeader {
    JournalHeader {
        store_id: [7; 16],
        number: 1,
        epoch: 1,
        nonce: NONCE,
        first_lsn: Lsn(1),
        previous_end: 0,
        created_unix_ms: 1,
        file_bytes: 0,
    }
}

/// Builds frames with right checksums: for each the number of transactions (a byte), the length of the payload, the
/// payload.
fn build(file: &mut Vec<u8>, mut input: Input<'_>) {
    let mut previous_crc = 0;
    for _ in 0..FRAMES_MAX {
        if input.is_empty() {
            break;
        }
        let transactions = input.byte();
        let length = usize::from(input.word());
        let payload = input.piece(length);
        let frame = FrameHeader {
            close: transactions == 0,
            nonce: NONCE,
            offset: file.len() as u64,
            first_lsn: Lsn(1),
            transactions: u32::from(transactions),
            payload_bytes: u32::try_from(payload.len()).expect("a piece is short"),
            payload_crc: checksum(payload),
            previous_crc,
        };
        previous_crc = frame.crc();
        let end = file.len() + frame_bytes(payload.len());
        file.extend(frame.encode());
        file.extend(payload);
        file.resize(end, 0);
    }
}

/// Checks that a transaction is encoded as one that reads the same. Origins beyond the maximum length are cut.
fn written_again(read: &Transaction) {
    let texts = [&read.origin.actor, &read.origin.request];
    if texts.iter().any(|text| text.len() > ORIGIN_BYTES_MAX) {
        return;
    }
    let mut out = Encoder::new();
    read.encode(&mut out);
    let bytes = out.finish();
    let mut decoder = Decoder::new(&bytes);
    assert_eq!(Transaction::decode(&mut decoder).as_ref(), Ok(read));
    decoder.end().expect("all of it was read");
}
