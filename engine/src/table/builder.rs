//! Builds the bytes of one run file, row by row.
//!
//! Owns: when a page is full, and the content of filter, directory and header. Refuses: I/O; `write` takes finished
//! pages and writes them.
//!
//! Invariants: rows come in ascending order; a page holds rows of one table. Memory: the pages that were not taken yet,
//! the directory (one entry per page) and the filter.

use bytes::Bytes;

use super::TableContext;
use super::context::PageSizes;
use super::filter::{Filter, KeyHash};
use crate::format::checkpoint::RunRef;
use crate::format::codec::{RunningChecksum, checksum};
use crate::format::row::filter_key;
use crate::format::run::{
    FILE_HEADER_BYTES, FileHeader, PageEntry, PagePlace, PageWriter, encode_directory, header_crc,
};

/// Blocks of the filter that are encoded at a time: 512 KiB.
const FILTER_PIECE_BLOCKS: usize = 16 << 10;

/// Filter keys that are inserted at a time.
const HASHES_AT_ONCE: usize = 256;

/// A run file that is being built.
#[derive(Debug)]
pub(super) struct Builder {
    store_id: [u8; 16],
    hash_key: [u8; 16],
    file_id: u64,
    sizes: PageSizes,
    page: PageWriter,
    entries: Vec<PageEntry>,
    rows: u64,
    filter: Filter,
    filter_keys: u64,
    // Not inserted yet.
    hashes: Vec<KeyHash>,
    last_filter_key: Vec<u8>,
    filter_offset: u64,
    // Blocks of the filter that were encoded, and their checksum.
    filter_written: usize,
    filter_sum: RunningChecksum,
    // Finished pages that were not taken yet, and the offset of the next page.
    finished: Vec<u8>,
    offset: u64,
}

/// The end of a run file, and its header, which is written last.
#[derive(Debug)]
pub(super) struct FinishedFile {
    pub(super) directory: Bytes,
    pub(super) header: Bytes,
    pub(super) reference: RunRef,
}

impl Builder {
    /// Starts a file of at most `filter_keys` different filter keys.
    pub(super) fn new(context: &TableContext, file_id: u64, filter_keys: u64) -> Self {
        Self {
            store_id: context.store_id,
            hash_key: context.hash_key,
            file_id,
            sizes: context.pages,
            page: PageWriter::default(),
            entries: Vec::new(),
            rows: 0,
            filter: Filter::with_room(filter_keys),
            filter_keys: 0,
            hashes: Vec::with_capacity(HASHES_AT_ONCE),
            last_filter_key: Vec::new(),
            filter_offset: 0,
            filter_written: 0,
            filter_sum: RunningChecksum::default(),
            finished: Vec::new(),
            offset: FILE_HEADER_BYTES as u64,
        }
    }

    /// Whether no row was added yet.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds the next row. `None` is a deleted row.
    pub(super) fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let table = key.first().copied().unwrap_or_default();
        let row_bytes = key.len() + value.map_or(0, <[u8]>::len);
        if self.page.rows() > 0 {
            let page_table = self.page.first_key().first().copied().unwrap_or_default();
            if page_table != table || self.page.bytes_with(row_bytes) > self.sizes.of(table) {
                self.finish_page();
            }
        }
        self.page.push(key, value);
        self.rows += 1;
        let filter_key = filter_key(key);
        if self.filter_keys == 0 || self.last_filter_key != filter_key {
            self.hashes.push(KeyHash::new(&self.hash_key, filter_key));
            if self.hashes.len() == HASHES_AT_ONCE {
                self.filter.insert(&self.hashes);
                self.hashes.clear();
            }
            self.filter_keys += 1;
            self.last_filter_key.clear();
            self.last_filter_key.extend_from_slice(filter_key);
        }
    }

    fn finish_page(&mut self) {
        let first_key = self.page.first_key().clone();
        let place = PagePlace {
            store_id: self.store_id,
            file_id: self.file_id,
            offset: self.offset,
        };
        let (page, crc) = self.page.finish(place);
        let Ok(bytes) = u32::try_from(page.len()) else {
            unreachable!("a page of {} bytes was built", page.len());
        };
        self.entries.push(PageEntry {
            offset: self.offset,
            bytes,
            crc,
            first_key,
        });
        self.offset += u64::from(bytes);
        self.finished.extend_from_slice(&page);
    }

    /// Returns the bytes of finished pages that were not taken yet.
    pub(super) fn finished_bytes(&self) -> usize {
        self.finished.len()
    }

    /// Takes the finished pages. They are written after those taken before.
    pub(super) fn take_finished(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.finished))
    }

    /// Ends the rows, of which there must be at least one. What is taken from here on is the last pages and then the
    /// filter.
    pub(super) fn finish_rows(&mut self) {
        assert!(!self.is_empty(), "a run without rows was built");
        self.finish_page();
        self.filter.insert(&self.hashes);
        self.filter_offset = self.offset;
    }

    /// Encodes the next piece of the filter; false if there is none.
    pub(super) fn finish_filter_piece(&mut self) -> bool {
        let piece = self.filter.encode(self.filter_written, FILTER_PIECE_BLOCKS);
        self.filter_written += FILTER_PIECE_BLOCKS;
        self.filter_sum.update(&piece);
        self.offset += piece.len() as u64;
        self.finished.extend_from_slice(&piece);
        !piece.is_empty()
    }

    /// Returns the directory and the header, after rows and filter were written.
    pub(super) fn finish(self) -> FinishedFile {
        let directory = encode_directory(&self.entries);
        let Ok(pages) = u32::try_from(self.entries.len()) else {
            unreachable!("a run of {} pages was built", self.entries.len());
        };
        let header = FileHeader {
            store_id: self.store_id,
            file_id: self.file_id,
            file_bytes: self.offset + directory.len() as u64,
            rows: self.rows,
            filter_keys: self.filter_keys,
            filter_offset: self.filter_offset,
            directory_offset: self.offset,
            filter_crc: self.filter_sum.finish(),
            directory_crc: checksum(&directory),
            pages,
        };
        let encoded = header.encode();
        let reference = RunRef {
            id: self.file_id,
            rows: self.rows,
            bytes: header.file_bytes,
            crc: header_crc(&encoded),
        };
        FinishedFile {
            directory: directory.into(),
            header: encoded.into(),
            reference,
        }
    }
}
