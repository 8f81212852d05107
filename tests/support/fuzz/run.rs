//! Fuzz target for a run file that a checkpoint names: it is opened, then searched.
//!
//! The input: a byte of choices, then the file (with right checksums if the lowest bit is set), or (second bit) pieces
//! that become pages: a first key and a payload for each. Checked: an accepted file has at most the rows it claims, in
//! order, and each is found.

use std::path::Path;

use bytes::Bytes;
use tonnage_engine::Lsn;
use tonnage_engine::format::checkpoint::{CheckpointRecord, RunRef};
use tonnage_engine::format::codec::Encoder;
use tonnage_engine::format::journal::JournalHeader;
use tonnage_engine::format::mark::FRAMES_START;
use tonnage_engine::format::run::{
    FileHeader, Page, PageEntry, PagePlace, decode_directory, encode_directory,
};
use tonnage_engine::fsck::{Finding, Severity};

use super::input::Input;
use super::{opened, seal};
use crate::machine::Image;
use crate::model::recover::fsck_image;

const SEAL: u8 = 1;
const BUILD: u8 = 2;
const PAGE_HEADER: usize = 64;
/// The store and the number of a file that is built.
const STORE: [u8; 16] = [7; 16];
const FILE: u64 = 3;

/// Runs the target on one file.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choices = input.byte();
    let mut file = if choices & BUILD == 0 {
        input.all().to_vec()
    } else {
        build(input)
    };
    if choices & (SEAL | BUILD) != 0 {
        seal::file(Path::new("any.run"), &mut file);
    }
    let Ok(header) = FileHeader::decode(&file) else {
        return;
    };
    // The file itself names its store; one of another store is rejected before anything else is read.
    let reference = RunRef {
        id: header.file_id,
        rows: header.rows,
        bytes: file.len() as u64,
        crc: seal::header_crc(&file),
    };
    let image = around(&header, reference, &file);
    drop(opened::look(&image));
    let report = fsck_image(1, &image).expect("there is a store to check");
    let is_taken = |finding: &Finding| finding.severity != Severity::Cache;
    if report.findings.iter().all(is_taken) {
        check_rows(&header, file.into());
    }
}

/// Returns a store whose checkpoint names this run, and whose journal is empty.
fn around(header: &FileHeader, run: RunRef, file: &[u8]) -> Image {
    let journal = JournalHeader {
        store_id: header.store_id,
        number: 1,
        epoch: 1,
        nonce: 1,
        first_lsn: Lsn(1),
        previous_end: 0,
        created_unix_ms: 1,
        file_bytes: 0,
    };
    let mut journal = journal.encode();
    journal.resize(FRAMES_START as usize, 0);
    let checkpoint = CheckpointRecord {
        store_id: header.store_id,
        sequence: 1,
        lsn: Lsn(0),
        journal_number: 1,
        journal_offset: FRAMES_START,
        next_repository: 1,
        next_segment: 1,
        next_file: header.file_id.saturating_add(1),
        runs: vec![run],
    };
    let name = format!("runs/{:016x}.run", header.file_id);
    let files = [
        ("journal/0000000000000001.journal", &*journal),
        ("checkpoint.1", &*checkpoint.encode()),
        (&*name, file),
    ];
    opened::image(header.store_id, files)
}

/// Checks the rows of an accepted file: as many as it claims, in order, and each found in its page.
fn check_rows(header: &FileHeader, file: Bytes) {
    let part = |from: u64, to: u64| file.slice(from as usize..to as usize);
    let directory = part(header.directory_offset, header.file_bytes);
    let pages = decode_directory(&directory, header.pages).expect("it was checked");
    let (mut last, mut count) = (None::<Vec<u8>>, 0);
    for entry in pages {
        let place = PagePlace {
            store_id: header.store_id,
            file_id: header.file_id,
            offset: entry.offset,
        };
        let bytes = part(entry.offset, entry.offset + u64::from(entry.bytes));
        let page = Page::open(bytes, place, entry.crc).expect("it was checked");
        for number in 0..page.rows() {
            let (key, value) = page.row(number).expect("it has so many");
            assert!(
                last.is_none_or(|last| *last < *key),
                "keys are not ascending"
            );
            assert_eq!(page.find(key), Some(value));
            last = Some(key.to_vec());
        }
        count += page.rows() as u64;
    }
    assert_eq!(count, header.rows);
}

/// Builds pages from pieces: rows (a byte), length of the first key (a byte), length of the payload, key, payload.
fn build(mut input: Input<'_>) -> Vec<u8> {
    let (mut pages, mut entries, mut rows) = (Vec::new(), Vec::new(), 0);
    while !input.is_empty() {
        let (count, key) = (input.byte(), usize::from(input.byte()));
        let length = usize::from(input.word());
        let first_key = Bytes::copy_from_slice(input.piece(key));
        let payload = input.piece(length);
        let offset = (4096 + pages.len()) as u64;
        let mut page = Encoder::new();
        let table = first_key.first().copied().unwrap_or_default();
        page.bytes(b"TPAG").u16(1).u8(1).u8(table);
        page.u64(FILE).u64(offset);
        page.u32(u32::from(count)).count(payload.len());
        page.bytes(&STORE[..8]).pad_to(PAGE_HEADER).bytes(payload);
        let mut page = page.finish();
        page.resize(page.len().next_multiple_of(64), 0);
        entries.push(PageEntry {
            offset,
            bytes: u32::try_from(page.len()).expect("a piece is short"),
            crc: 0,
            first_key,
        });
        rows += u64::from(count);
        pages.extend(page);
    }
    let directory = encode_directory(&entries);
    let filter_offset = (4096 + pages.len()) as u64;
    // One block that denies no key.
    let filter = [0xff; 32];
    let directory_offset = filter_offset + filter.len() as u64;
    let header = FileHeader {
        store_id: STORE,
        file_id: FILE,
        file_bytes: directory_offset + directory.len() as u64,
        rows,
        filter_keys: rows,
        filter_offset,
        directory_offset,
        filter_crc: 0,
        directory_crc: 0,
        pages: u32::try_from(entries.len()).expect("an input is short"),
    };
    let mut file = header.encode();
    file.extend(pages);
    file.extend(filter);
    file.extend(directory);
    file
}
