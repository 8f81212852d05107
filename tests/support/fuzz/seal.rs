//! Computes right checksums where FORMAT.md has them, so that a fuzzer reaches the code after their checks.
//!
//! Owns: [`block`] for one structure, [`file()`] for a whole file of a store, whatever else is wrong with it. Bytes
//! that are no structure stay unchanged. An attacker who can write to the disk could do the same.

use std::path::Path;

use tonnage_engine::format::codec::checksum;

const BLOCK: usize = 4096;

/// Returns `bytes`, cut or filled with zeros to `length`, with the checksum of the others in its last four bytes.
pub fn block(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    sealed.resize(length, 0);
    within(&mut sealed, 0, length);
    sealed
}

/// Seals the structures of a store's file, whose kind its name tells.
pub fn file(path: &Path, bytes: &mut [u8]) {
    let name = path.file_name().map(|name| name.to_string_lossy());
    match path.extension().and_then(|end| end.to_str()) {
        Some("journal") => journal(bytes),
        Some("segment") => segment(bytes),
        Some("upload") => upload(bytes),
        Some("run") => run(bytes),
        _ if name.is_some_and(|name| name == "superblock") => {
            for copy in 0..4 {
                within(bytes, copy * BLOCK, BLOCK);
            }
        }
        _ => checkpoint(bytes),
    }
}

/// Returns the checksum of a run file's header, for the checkpoint that names it.
pub fn header_crc(file: &[u8]) -> u32 {
    number(file, BLOCK - 4)
}

/// Writes the checksums of run headers into a checkpoint, in the order in which it names them.
pub fn name_headers(record: &mut [u8], mut crc_of: impl FnMut(u64) -> Option<u32>) {
    let count = number(record, 88).min(64);
    for at in (96..).step_by(32).take(count as usize) {
        let Some(id) = record.get(at..at + 8).and_then(|id| id.try_into().ok()) else {
            break;
        };
        if let Some(crc) = crc_of(u64::from_le_bytes(id)) {
            put(record, at + 24, crc);
        }
    }
    checkpoint(record);
}

/// Writes the checksum of the structure of `length` bytes at `at` into its last four bytes.
fn within(bytes: &mut [u8], at: usize, length: usize) {
    let Some(end) = at.checked_add(length).filter(|end| *end <= bytes.len()) else {
        return;
    };
    if length < 4 {
        return;
    }
    let sum = checksum(&bytes[at..end - 4]);
    put(bytes, end - 4, sum);
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(4)) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at.saturating_add(4));
    four.and_then(|four| four.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn journal(bytes: &mut [u8]) {
    within(bytes, 0, BLOCK);
    for mark in [BLOCK, 2 * BLOCK] {
        if bytes.get(mark..mark + 4) == Some(b"TMRK") {
            within(bytes, mark, 64);
        }
    }
    let (mut at, mut previous) = (3 * BLOCK, 0);
    while bytes.get(at..at + 4) == Some(b"TFRM") {
        let length = number(bytes, at + 36) as usize;
        let payload = bytes.get(at + 64..(at + 64).saturating_add(length));
        if let Some(sum) = payload.map(checksum) {
            put(bytes, at + 40, sum);
        }
        put(bytes, at + 44, previous);
        within(bytes, at, 64);
        previous = number(bytes, at + 60);
        at = at.saturating_add((64 + length).next_multiple_of(BLOCK));
    }
}

/// Seals the header, frames, tables, and the checksum of each chunk.
fn segment(bytes: &mut [u8]) {
    within(bytes, 0, BLOCK);
    for at in (BLOCK..bytes.len()).step_by(64) {
        if bytes.get(at..at + 4) != Some(b"TREC") {
            continue;
        }
        let trailing = bytes.get(at + 6) == Some(&1);
        let length = number(bytes, at + 24) as usize;
        let table = 4 * length.div_ceil(64 << 10);
        let (from, payload) = if trailing {
            (BLOCK.saturating_add(length.next_multiple_of(64)), BLOCK)
        } else {
            (at + 128, at + 128 + table.next_multiple_of(64))
        };
        if payload.saturating_add(length) > bytes.len() || from + table > bytes.len() {
            continue;
        }
        for (number, chunk) in (payload..payload + length).step_by(64 << 10).enumerate() {
            let sum = checksum(&bytes[chunk..(chunk + (64 << 10)).min(payload + length)]);
            put(bytes, from + 4 * number, sum);
        }
        let sum = checksum(&bytes[from..from + table]);
        put(bytes, at + 112, sum);
        within(bytes, at, 128);
    }
}

fn upload(bytes: &mut [u8]) {
    within(bytes, 0, BLOCK);
    let mut at = BLOCK;
    while bytes.get(at..at + 4) == Some(b"TUCP") {
        let length = number(bytes, at + 4) as usize;
        within(bytes, at, length);
        at = at.saturating_add(length.max(8));
    }
}

/// Seals the pages, the directory's copies of their checksums, the filter, the directory, the header.
fn run(bytes: &mut [u8]) {
    let (filter, directory) = (number(bytes, 64) as usize, number(bytes, 72) as usize);
    let (mut entry, mut page) = (directory, BLOCK);
    for _ in 0..number(bytes, 12).min(1024) {
        let length = number(bytes, entry.saturating_add(8)) as usize;
        let Some(end) = page.checked_add(length).filter(|end| *end <= bytes.len()) else {
            break;
        };
        if length < 64 {
            break;
        }
        let mut covered = bytes[page..page + 60].to_vec();
        covered.extend(&bytes[page + 64..end]);
        let sum = checksum(&covered);
        put(bytes, page + 60, sum);
        put(bytes, entry + 12, sum);
        page = end;
        let key = number(bytes, entry + 16) as usize;
        entry = entry.saturating_add(20).saturating_add(key);
    }
    if let Some(sum) = bytes.get(filter..directory).map(checksum) {
        put(bytes, 80, sum);
    }
    if let Some(sum) = bytes.get(directory..).map(checksum) {
        put(bytes, 84, sum);
    }
    within(bytes, 0, BLOCK);
}

fn checkpoint(bytes: &mut [u8]) {
    let length = number(bytes, 12) as usize;
    within(bytes, 0, length);
}
