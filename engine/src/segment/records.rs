//! The records of a shared segment, one after the other.
//!
//! Owns: [`RecordScan`], which finds records by their own frames, and reads them checked. Refuses: knowing which of them
//! are live (index), and finding the record of a dedicated segment.
//!
//! Invariants: memory is bounded by one window and one record. What is not read is not checked. A position without a
//! frame is skipped, so that rot hides no record but its own.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::damaged::Damaged;
use super::files::{SegmentFile, SegmentFiles};
use crate::buffer::Buffer;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Layout, SegmentId};
use crate::format::checksum::{check_chunks, chunk_count, decode_table};
use crate::format::codec::checksum;
use crate::format::record::{
    FRAME_BYTES, FoundFrame, RECORD_ALIGN, RecordPlaces, pad64, table_bytes,
};
use crate::format::segment::{HEADER_BYTES, SegmentClass};
use crate::io::{Class, exact};

/// Bytes that are read at once; a multiple of the chunk.
const WINDOW_BYTES: u64 = 1 << 20;

/// A walk over the records of one shared segment.
#[derive(Debug)]
pub(crate) struct RecordScan {
    file: Arc<SegmentFile>,
    store: [u8; 16],
    damaged: Arc<Damaged>,
    /// Length of the file.
    end: u64,
    /// Where the next record may start.
    at: u64,
    window: Bytes,
    window_at: u64,
    /// Bytes read from the file.
    read_bytes: u64,
}

/// A record whose frame is intact.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FoundRecord {
    /// The blob that it names.
    pub digest: Digest,
    /// Where the payload is.
    pub extent: Extent,
    places: RecordPlaces,
    table_checksum: u32,
}

impl FoundRecord {
    /// Returns the bytes that the record takes in the segment, padding included.
    pub(crate) fn occupied_bytes(&self) -> u64 {
        self.places.occupied_bytes()
    }
}

/// The content of a record, checked.
#[derive(Debug)]
pub(crate) struct RecordContent {
    /// The payload, in pieces.
    pub payload: Vec<Bytes>,
    /// Its chunk checksums, as they are stored.
    pub checksums: Vec<u32>,
}

impl RecordScan {
    /// Opens a segment and starts at its first record. `None` if it is not shared, as far as its header says.
    pub(super) async fn open(
        files: &Arc<SegmentFiles>,
        damaged: &Arc<Damaged>,
        id: SegmentId,
    ) -> Result<Option<Self>> {
        let file = files.open_for_background(id).await?;
        if file.class() != Some(SegmentClass::Shared) {
            return Ok(None);
        }
        let length = file.file().len(Class::Background.call()).await;
        let end = length.map_err(|error| Error::io("read length of", file.path(), error))?;
        Ok(Some(Self {
            file,
            store: files.store(),
            damaged: Arc::clone(damaged),
            end,
            at: HEADER_BYTES as u64,
            window: Bytes::new(),
            window_at: 0,
            read_bytes: 0,
        }))
    }

    /// Returns the bytes that were read from the file so far.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Returns the next record; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<FoundRecord>> {
        while self.at + FRAME_BYTES as u64 <= self.end {
            let start = self.at;
            let frame = self.fetch(start..start + FRAME_BYTES as u64).await?;
            if let Some(record) = self.decode(&frame, start) {
                self.at = pad64(record.places.end);
                return Ok(Some(record));
            }
            self.at += RECORD_ALIGN;
        }
        Ok(None)
    }

    /// Decodes a frame that must be the one at `start` of this segment.
    fn decode(&self, frame: &[u8], start: u64) -> Option<FoundRecord> {
        let found = FoundFrame::decode(frame).ok()?;
        let is_own = self.store.starts_with(&found.store_head)
            && found.segment == self.file.id()
            && found.offset == start
            && found.layout == Layout::Leading;
        let extent = found.extent().ok().filter(|_| is_own)?;
        let places = RecordPlaces::of(&extent).ok()?;
        (places.end <= self.end).then_some(FoundRecord {
            digest: found.digest,
            extent,
            places,
            table_checksum: found.table_checksum,
        })
    }

    /// Reads and checks a record that is live. Returns `None` if it is damaged, which is marked.
    ///
    /// # Errors
    /// An operation that was not attempted. It says nothing about the record.
    pub(crate) async fn read(&mut self, record: &FoundRecord) -> Result<Option<RecordContent>> {
        let (digest, extent) = (record.digest, record.extent);
        let content = self.read_checked(record).await;
        if let Err(error) = &content {
            if matches!(error, Error::Corrupt(_)) {
                self.damaged.mark_wrong(digest, extent);
            } else if error.is_not_attempted() {
                return Err(error.clone());
            } else {
                let span = record.places.frame..record.places.end;
                self.damaged.mark_unreadable(digest, extent, span);
            }
        }
        Ok(content.ok())
    }

    async fn read_checked(&mut self, record: &FoundRecord) -> Result<RecordContent> {
        let (digest, places) = (record.digest, record.places);
        let path = self.file.path().to_owned();
        let wrong =
            |at: u64, what: &str| Error::corrupt(&path, at, format!("{what} (blob {digest})"));
        let table = places.table..places.table + table_bytes(record.extent.length);
        let table = self.fetch(table).await?;
        let computed = checksum(&table);
        if computed != record.table_checksum {
            let stored = record.table_checksum;
            let what = format!(
                "checksum table: its checksum is {stored:08x}, its bytes give {computed:08x}"
            );
            return Err(wrong(places.table, &what));
        }
        let checksums = decode_table(&table);
        let mut rest = checksums.as_slice();
        let mut payload = Vec::new();
        let mut at = places.payload;
        while at < places.end {
            let to = places.end.min(at + WINDOW_BYTES);
            let piece = self.fetch(at..to).await?;
            check_chunks(&piece, rest)
                .map_err(|(offset, what)| wrong(at + offset as u64, &what.0))?;
            let chunks = chunk_count(to - at);
            rest = rest
                .get(usize::try_from(chunks).unwrap_or(usize::MAX)..)
                .unwrap_or_default();
            payload.push(piece);
            at = to;
        }
        Ok(RecordContent { payload, checksums })
    }

    /// Returns the bytes of a span of at most one window, from the window where possible.
    async fn fetch(&mut self, span: Range<u64>) -> Result<Bytes> {
        let known = self.window_at..self.window_at + self.window.len() as u64;
        if span.start < known.start || span.end > known.end {
            let length = WINDOW_BYTES.min(self.end - span.start);
            let buffer = Buffer::unpooled(usize::try_from(length).unwrap_or(usize::MAX));
            let file = self.file.file();
            let read = exact::read_exact(file, Class::Background.call(), span.start, buffer).await;
            let read = read.map_err(|error| Error::io("read segment", self.file.path(), error))?;
            self.read_bytes += length;
            (self.window, self.window_at) = (read.freeze(), span.start);
        }
        let from = usize::try_from(span.start - self.window_at).unwrap_or(usize::MAX);
        let to = usize::try_from(span.end - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.slice(from..to))
    }
}
