//! A base file, opened as a checkpoint names it, then searched.
//!
//! The input: a byte of choices, then the file as it is (with right checksums where the lowest bit says so), or (second bit) pieces that
//! become pages: a first key and an archive each. Demanded: a file that is taken has the rows it claims, in order, and each is found.

use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use tonnage_engine::format::base::{FileHeader, PageEntry, encode_directory};
use tonnage_engine::format::checkpoint::PartitionRef;
use tonnage_engine::format::codec::Encoder;
use tonnage_engine::table::{Base, Layers};

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
        seal::file(Path::new("any.base"), &mut file);
    }
    let Ok(header) = FileHeader::decode(&file) else {
        return;
    };
    // Whose file it is, it says itself: a foreign one is refused before anything else is read.
    let name = format!("{:016x}.base", header.file_id);
    let directory = usize::try_from(header.directory_offset).unwrap_or(usize::MAX);
    let mut entry = Input::new(file.get(directory..).unwrap_or_default());
    entry.piece(12);
    let key = entry.number() as usize;
    let reference = PartitionRef {
        id: header.file_id,
        first_key: Bytes::copy_from_slice(entry.piece(key)),
        rows: header.rows,
        bytes: file.len() as u64,
        crc: seal::header_crc(&file),
    };
    let mut image = Image::with_dir("/base");
    let path = Path::new("/base").join(name);
    image.files.insert(path, Content::from(file.as_slice()));
    let machine = Machine::new(1, &image);
    let (folder, named) = (Path::new("/base"), std::slice::from_ref(&reference));
    let opening = Base::open(&machine.env, folder, header.store_id, named);
    let Ok(base) = machine.executor.block_on(opening) else {
        return;
    };
    assert_eq!(base.references(), [reference]);
    let layers = Layers::new(base);
    let mut last: Option<Bytes> = None;
    let mut count = 0;
    for row in layers.scan(Bound::Unbounded, Bound::Unbounded) {
        let (key, value) = row.expect("every page was checked");
        assert!(last.is_none_or(|last| last < key), "keys do not ascend");
        assert_eq!(layers.get(&key).expect("a sound page"), Some(value));
        count += 1;
        last = Some(key);
    }
    assert_eq!(count, header.rows);
}

/// Pages out of pieces: rows (a byte), length of the first key (a byte), length of the archive, key, archive.
fn build(mut input: Input<'_>) -> Vec<u8> {
    let (mut pages, mut entries, mut rows) = (Vec::new(), Vec::new(), 0);
    while !input.is_empty() {
        let (count, key) = (input.byte(), usize::from(input.byte()));
        let length = usize::from(input.word());
        let first_key = Bytes::copy_from_slice(input.piece(key));
        let archive = input.piece(length);
        let mut page = Encoder::new();
        page.bytes(b"TPAG").u16(1).u8(1).u8(b't');
        page.u64(FILE).u64((4096 + pages.len()) as u64);
        page.u32(u32::from(count)).count(archive.len());
        page.bytes(&STORE[..8]).pad_to(PAGE_HEADER).bytes(archive);
        let mut page = page.finish();
        page.resize(page.len().next_multiple_of(64), 0);
        entries.push(PageEntry {
            bytes: u32::try_from(page.len()).expect("a piece is short"),
            rows: u32::from(count),
            crc: 0,
            first_key,
        });
        rows += u64::from(count);
        pages.extend(page);
    }
    let directory = encode_directory(&entries);
    let offset = 4096 + pages.len();
    let header = FileHeader {
        store_id: STORE,
        file_id: FILE,
        file_bytes: (offset + directory.len()) as u64,
        rows,
        directory_offset: offset as u64,
        directory_crc: 0,
        pages: u32::try_from(entries.len()).expect("an input is short"),
    };
    let mut file = header.encode();
    file.extend(pages);
    file.extend(directory);
    file
}
