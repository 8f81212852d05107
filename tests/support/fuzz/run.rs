//! A run file, opened as a checkpoint names it, then searched.
//!
//! The input: a byte of choices, then the file as it is (with right checksums where the lowest bit says so), or (second bit) pieces that
//! become pages: a first key and the payload of a page each. Demanded: a file that is taken has at most the rows it claims, in order,
//! and each is found.

use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use tonnage_engine::format::checkpoint::RunRef;
use tonnage_engine::format::codec::Encoder;
use tonnage_engine::format::run::{FileHeader, PageEntry, encode_directory};
use tonnage_engine::format::superblock::Superblock;
use tonnage_engine::table::{Layers, Runs, Site};

use super::input::Input;
use super::seal;
use crate::machine::{Content, Image, Machine};

const SEAL: u8 = 1;
const BUILD: u8 = 2;
const PAGE_HEADER: usize = 64;
/// Of a file that is built.
const STORE: [u8; 16] = [7; 16];
const FILE: u64 = 3;

/// Takes one file.
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
    // Whose file it is, it says itself: a foreign one is refused before anything else is read.
    let reference = RunRef {
        id: header.file_id,
        rows: header.rows,
        bytes: file.len() as u64,
        crc: seal::header_crc(&file),
    };
    let mut image = Image::with_dir("/store/runs");
    let name = format!("/store/runs/{:016x}.run", header.file_id);
    image
        .files
        .insert(name.into(), Content::from(file.as_slice()));
    let machine = Machine::new(1, &image);
    let superblock = Superblock {
        store_id: header.store_id,
        hash_key: [9; 16],
        compatible: 0,
        read_only_compatible: 0,
        incompatible: 0,
        created_unix_ms: 0,
    };
    let site = Site::new(machine.env.clone(), Path::new("/store"), &superblock);
    let opening = Runs::open(&site, std::slice::from_ref(&reference));
    let Ok(runs) = machine.executor.block_on(opening) else {
        return;
    };
    assert_eq!(runs.references(), [reference]);
    let layers = Layers::new(runs);
    let mut scan = layers.scan(Bound::Unbounded, Bound::Unbounded);
    let mut last: Option<Bytes> = None;
    let mut count = 0;
    let next = |scan: &mut tonnage_engine::table::Scan| {
        let next = machine.executor.block_on(scan.next_resident());
        next.expect("every page was checked")
    };
    while let Some((key, value)) = next(&mut scan) {
        assert!(last.is_none_or(|last| last < key), "keys do not ascend");
        // A filter of the input's own may deny it.
        let found = layers.get(&key).expect("a sound page");
        assert!(choices & BUILD == 0 || found == Some(value));
        count += 1;
        last = Some(key);
    }
    assert!(count <= header.rows);
}

/// Pages out of pieces: rows (a byte), length of the first key (a byte), length of the payload, key, payload.
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
