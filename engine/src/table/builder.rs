//! The bytes of one base file, row by row.
//!
//! Owns: when a page is full, and what goes into header and directory.
//! Refuses: I/O; finished pages are taken out and written by `rewrite`.
//!
//! Invariants: rows come in ascending order; a page holds rows of one table. Memory: the pages not taken out yet
//! and the directory (one entry a page).

use bytes::Bytes;

use super::{PageSizes, partition};
use crate::format::base::{
    FILE_HEADER_BYTES, FileHeader, PAGE_HEADER_BYTES, PageEntry, PagePlace, PageRow,
    ROW_OVERHEAD_BYTES, encode_directory, encode_page,
};
use crate::format::checkpoint::PartitionRef;
use crate::format::codec::checksum;

/// A base file that is being built.
#[derive(Debug)]
pub(super) struct Builder {
    store_id: [u8; 16],
    file_id: u64,
    sizes: PageSizes,
    // Rows of the page that is being filled, and its size so far.
    rows: Vec<PageRow>,
    page_bytes: usize,
    entries: Vec<PageEntry>,
    total_rows: u64,
    // Finished pages not taken out, and the offset at which the next page starts.
    finished: Vec<u8>,
    offset: u64,
}

/// The end of a base file, and its head, which is written last.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) tail: Bytes,
    pub(super) header: Bytes,
    pub(super) reference: PartitionRef,
}

impl Builder {
    pub(super) fn new(store_id: [u8; 16], file_id: u64, sizes: PageSizes) -> Self {
        Self {
            store_id,
            file_id,
            sizes,
            rows: Vec::new(),
            page_bytes: PAGE_HEADER_BYTES,
            entries: Vec::new(),
            total_rows: 0,
            finished: Vec::new(),
            offset: FILE_HEADER_BYTES as u64,
        }
    }

    /// Adds the next row.
    pub(super) fn push(&mut self, key: Bytes, value: Bytes) {
        let table = key.first().copied().unwrap_or_default();
        let row_bytes = key.len() + value.len() + ROW_OVERHEAD_BYTES;
        if let Some(first) = self.rows.first() {
            let other_table = first.key.first().copied().unwrap_or_default() != table;
            if other_table || self.page_bytes + row_bytes > self.sizes.of(table) {
                self.finish_page();
            }
        }
        self.page_bytes += row_bytes;
        self.rows.push(PageRow { key, value });
    }

    fn finish_page(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        self.page_bytes = PAGE_HEADER_BYTES;
        let Some(first) = rows.first() else { return };
        // A copy of its own: the row's may be part of something larger.
        let first_key = Bytes::copy_from_slice(&first.key);
        let count = rows.len();
        let place = PagePlace {
            store_id: self.store_id,
            file_id: self.file_id,
            offset: self.offset,
        };
        let (page, crc) = encode_page(place, rows);
        let (Ok(bytes), Ok(rows)) = (u32::try_from(page.len()), u32::try_from(count)) else {
            unreachable!("a page of {} bytes and {count} rows was built", page.len());
        };
        self.entries.push(PageEntry {
            bytes,
            rows,
            crc,
            first_key,
        });
        self.total_rows += u64::from(rows);
        self.offset += u64::from(bytes);
        self.finished.extend_from_slice(&page);
    }

    /// Size of the file so far, without its directory.
    pub(super) fn file_bytes(&self) -> u64 {
        self.offset + self.page_bytes as u64
    }

    /// Bytes of finished pages that were not taken out.
    pub(super) fn finished_bytes(&self) -> usize {
        self.finished.len()
    }

    /// Takes finished pages out, to be written behind those taken before.
    pub(super) fn take_finished(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.finished))
    }

    /// Ends the file: its last pages and directory, and its header. There must be a row.
    pub(super) fn finish(mut self) -> Finished {
        self.finish_page();
        let first_key = match self.entries.first() {
            Some(entry) => entry.first_key.clone(),
            None => unreachable!("a base file without rows was built"),
        };
        let directory = encode_directory(&self.entries);
        let Ok(pages) = u32::try_from(self.entries.len()) else {
            unreachable!("a base file of {} pages was built", self.entries.len());
        };
        let header = FileHeader {
            store_id: self.store_id,
            file_id: self.file_id,
            file_bytes: self.offset + directory.len() as u64,
            rows: self.total_rows,
            directory_offset: self.offset,
            directory_crc: checksum(&directory),
            pages,
        };
        let encoded = header.encode();
        let reference = PartitionRef {
            id: self.file_id,
            first_key,
            rows: self.total_rows,
            bytes: header.file_bytes,
            crc: partition::header_crc(&encoded),
        };
        let mut tail = std::mem::take(&mut self.finished);
        tail.extend_from_slice(&directory);
        Finished {
            tail: tail.into(),
            header: encoded.into(),
            reference,
        }
    }
}
