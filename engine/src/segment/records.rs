//! The records of a shared segment, read to be copied.
//!
//! Owns: [`RecordScan`]: the walk, and the check of each record that is read. Refuses: knowing which of them are live
//! (index).
//!
//! Invariants: what is returned was checked in this read, and its checksums are those that are stored. Memory is
//! bounded by one window and one record, which is a copy, so no window is held while the next one waits for memory.

use std::sync::Arc;

use bytes::Bytes;

use super::Segments;
use super::damaged::{Damaged, Proof};
use super::record_walk::{RecordWalk, WalkedRecord};
use super::uncached::UncachedSegment;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Layout, SegmentId};
use crate::format::checksum::{check_chunks, chunk_count, decode_table};
use crate::format::codec::checksum;
use crate::format::record::{FRAME_BYTES, FoundFrame, RecordPlaces, table_bytes};
use crate::limits::CHUNK_BYTES;

/// A walk over the records of one shared segment.
#[derive(Debug)]
pub(crate) struct RecordScan {
    segment: UncachedSegment,
    /// `None` if the segment's header is not intact: then nothing of it is copied.
    walk: Option<RecordWalk>,
    damaged: Arc<Damaged>,
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
    /// Opens a segment and starts at its first record.
    pub(super) async fn open(segments: &Segments, id: SegmentId) -> Result<Self> {
        let mut segment = segments.open_uncached(id).await?;
        let walk = RecordWalk::start(&mut segment, u64::MAX).await?;
        Ok(Self {
            segment,
            walk,
            damaged: Arc::clone(segments.damaged()),
        })
    }

    /// Takes the number of bytes that were read from the file since the last call.
    pub(crate) fn take_read_bytes(&mut self) -> u64 {
        self.segment.take_read_bytes()
    }

    /// Returns the next record; `None` at the end. A dedicated segment has none for it, because it is never compacted.
    pub(crate) async fn next(&mut self) -> Result<Option<WalkedRecord>> {
        let Some(walk) = &mut self.walk else {
            return Ok(None);
        };
        let found = walk.next(&mut self.segment).await?;
        Ok(found.filter(|record| record.extent.layout == Layout::Leading))
    }

    /// Marks what such an error found, because the blob is still in this place.
    pub(crate) fn mark(&self, record: &WalkedRecord, error: &Error) {
        let WalkedRecord { digest, extent } = *record;
        if matches!(error, Error::Corrupt(_)) {
            let proof = Proof::Drive;
            self.damaged.mark_wrong_until(digest, extent, proof);
        } else if let Ok(places) = RecordPlaces::of(&extent) {
            let span = places.frame..places.end;
            let proof = Proof::Drive;
            self.damaged
                .mark_unreadable_until(digest, extent, span, proof);
        }
    }

    fn places(&self, digest: &Digest, record: &WalkedRecord) -> Result<RecordPlaces> {
        let offset = record.extent.offset;
        RecordPlaces::of(&record.extent).map_err(|what| self.wrong(digest, offset, &what.0))
    }

    fn wrong(&self, digest: &Digest, at: u64, what: &str) -> Error {
        Error::corrupt(self.segment.path(), at, format!("{what} (blob {digest})"))
    }

    /// Reads and checks a record.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if its bytes are wrong, [`Error::Io`] if they could not be read.
    pub(crate) async fn read(&mut self, record: &WalkedRecord) -> Result<RecordContent> {
        let WalkedRecord { digest, extent } = *record;
        let places = self.places(&digest, record)?;
        let frame = places.frame..places.frame + FRAME_BYTES as u64;
        let frame = {
            let frame = self.segment.window(frame).await?;
            let frame = FoundFrame::decode_of(&frame, self.segment.store(), &digest, &extent);
            frame.map_err(|what| self.wrong(&digest, places.frame, &what.0))?
        };
        let table = places.table..places.table + table_bytes(extent.length);
        let table = self.segment.window(table).await?;
        let (stored, computed) = (frame.table_checksum, checksum(&table));
        if computed != stored {
            let what = format!(
                "checksum table: its checksum is {stored:08x}, its bytes give {computed:08x}"
            );
            return Err(self.wrong(&digest, places.table, &what));
        }
        let checksums = decode_table(&table);
        drop(table);
        let mut rest = checksums.as_slice();
        let mut payload = Vec::new();
        let mut at = places.payload;
        while at < places.end {
            let chunk = CHUNK_BYTES as u64;
            let to = places
                .end
                .min(at + UncachedSegment::reach(at) / chunk * chunk);
            let piece = Bytes::copy_from_slice(&self.segment.window(at..to).await?);
            check_chunks(&piece, rest)
                .map_err(|(offset, what)| self.wrong(&digest, at + offset as u64, &what.0))?;
            let chunks = usize::try_from(chunk_count(to - at)).unwrap_or(usize::MAX);
            rest = rest.get(chunks..).unwrap_or_default();
            payload.push(piece);
            at = to;
        }
        Ok(RecordContent { payload, checksums })
    }
}
