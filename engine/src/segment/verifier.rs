//! The check of one record on the drive, window by window.
//!
//! Owns: [`RecordVerifier`]. Refuses: choosing records (`store::scrub`), and marking what it finds.
//!
//! Invariants: the whole record is read: frame, table, payload. A frame must name the blob and the place. Memory does
//! not grow with the record, except for the table of a leading one.

use std::ops::Range;

use bytes::Bytes;

use super::uncached::UncachedSegment;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::extent::{Extent, Layout};
use crate::format::checksum::{check_chunks, decode_table};
use crate::format::codec::{Malformed, RunningChecksum};
use crate::format::record::{FRAME_BYTES, FoundFrame, RecordPlaces, table_bytes};
use crate::io::Env;
use crate::limits::CHUNK_BYTES;
use crate::vocabulary::ClientId;

const CHUNK: u64 = CHUNK_BYTES as u64;
/// Chunks whose checksums are read at once from a table after the payload: 4 KiB of table, for 64 MiB of payload.
const SLICE_CHUNKS: u64 = 1024;

/// One record that is being checked.
#[derive(Debug)]
pub(crate) struct RecordVerifier {
    digest: Digest,
    extent: Extent,
    places: RecordPlaces,
    table_checksum: u32,
    /// Checksum of the table as far as it was read.
    computed: RunningChecksum,
    /// Checksums of the chunks from `first` on.
    table: Vec<u32>,
    first: u64,
    /// Payload bytes that were checked.
    position: u64,
    hasher: Option<Hasher>,
    /// Bytes of the segment that the current step reads.
    span: Range<u64>,
}

impl RecordVerifier {
    /// Prepares the check of `digest` at `extent`, with its digest or without.
    ///
    /// # Errors
    /// No record can have this extent.
    pub(crate) fn new(
        digest: Digest,
        extent: Extent,
        digests: bool,
    ) -> std::result::Result<Self, Malformed> {
        let places = RecordPlaces::of(&extent)?;
        Ok(Self {
            digest,
            extent,
            places,
            table_checksum: 0,
            computed: RunningChecksum::default(),
            table: Vec::new(),
            first: 0,
            position: 0,
            hasher: digests.then(|| Hasher::new(digest.algorithm())),
            span: places.frame..places.frame + FRAME_BYTES as u64,
        })
    }

    /// Returns the bytes of the segment that the last step read and found intact, or failed to read.
    pub(crate) fn span(&self) -> Range<u64> {
        self.span.clone()
    }

    /// Checks the frame, and the table of a leading record.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes on the drive are wrong. Other errors say nothing about them.
    pub(crate) async fn begin(&mut self, segment: &mut UncachedSegment) -> Result<()> {
        let frame = match self.extent.layout {
            Layout::Leading => segment.window(self.span.clone()).await?,
            Layout::Trailing => segment.aside(self.span.clone()).await?,
        };
        let found = FoundFrame::decode_of(&frame, segment.store(), &self.digest, &self.extent)
            .map_err(|what| self.wrong(segment, self.places.frame, &what.0))?;
        drop(frame);
        self.table_checksum = found.table_checksum;
        if self.extent.layout == Layout::Leading {
            self.span.end = self.places.table + table_bytes(self.extent.length);
            let table = segment.window(self.places.table..self.span.end).await?;
            self.computed.update(&table);
            self.table = decode_table(&table);
            self.check_table(segment)?;
            // The padding before the payload has no checksum, and no use.
            self.span.end = self.places.payload;
        }
        Ok(())
    }

    /// Returns the checksums of a leading record, as they are stored, once its table is checked.
    pub(super) fn checksums(&self) -> &[u32] {
        &self.table
    }

    /// Checks the next window of the payload and returns it; `None` once the whole record is checked.
    ///
    /// # Errors
    /// As [`RecordVerifier::begin`], and [`Error::DigestMismatch`].
    pub(crate) async fn step(
        &mut self,
        segment: &mut UncachedSegment,
        env: &Env,
    ) -> Result<Option<Bytes>> {
        let length = self.extent.length;
        if self.position >= length {
            self.finish(segment)?;
            return Ok(None);
        }
        if self.extent.layout == Layout::Trailing
            && self.position.is_multiple_of(SLICE_CHUNKS * CHUNK)
        {
            self.load_slice(segment).await?;
        }
        let at = self.places.payload + self.position;
        let reach = UncachedSegment::reach(at) / CHUNK * CHUNK;
        let slice_end = (self.first + self.table.len() as u64) * CHUNK;
        let to = length.min(self.position + reach).min(slice_end);
        self.span = at..self.places.payload + to;
        let payload = segment.window(self.span.clone()).await?;
        let skip = usize::try_from(self.position / CHUNK - self.first).unwrap_or(usize::MAX);
        let table = self.table.get(skip..).unwrap_or_default();
        check_chunks(&payload, table).map_err(|(offset, what)| {
            let chunk = (self.position + offset as u64) / CHUNK;
            self.wrong(
                segment,
                at + offset as u64,
                &format!("chunk {chunk}: {what}"),
            )
        })?;
        self.hash(&payload, env).await?;
        self.position = to;
        if to == length {
            // The padding before a table that follows has no checksum, and no use.
            self.span.end = self.span.end.max(self.places.table);
        }
        Ok(Some(payload))
    }

    /// Reads the next slice of a table after the payload.
    async fn load_slice(&mut self, segment: &mut UncachedSegment) -> Result<()> {
        self.first = self.position / CHUNK;
        let from = self.places.table + 4 * self.first;
        let end = self.places.table + table_bytes(self.extent.length);
        self.span = from..end.min(from + 4 * SLICE_CHUNKS);
        let table = segment.aside(self.span.clone()).await?;
        self.computed.update(&table);
        self.table = decode_table(&table);
        Ok(())
    }

    /// Adds checked bytes to the digest, off the async workers: it takes about a millisecond.
    async fn hash(&mut self, payload: &Bytes, env: &Env) -> Result<()> {
        let Some(mut hasher) = self.hasher.take() else {
            return Ok(());
        };
        let payload = payload.clone();
        let hashed = env.hash(ClientId::ENGINE, move || {
            hasher.update(&payload);
            hasher
        });
        // If it does not run, the program stops.
        self.hasher = Some(hashed.await.ok_or(Error::Closed)?);
        Ok(())
    }

    fn finish(&mut self, segment: &UncachedSegment) -> Result<()> {
        if self.extent.layout == Layout::Trailing {
            self.check_table(segment)?;
        }
        self.span = self.places.table.min(self.places.frame)..self.places.end;
        if self.extent.layout == Layout::Leading {
            self.span.end = self.places.payload;
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.digest => Err(Error::DigestMismatch {
                expected: self.digest,
                found,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Compares the checksum of the table in the frame with the one computed from the table's bytes.
    fn check_table(&self, segment: &UncachedSegment) -> Result<()> {
        let (stored, computed) = (self.table_checksum, self.computed.clone().finish());
        if computed == stored {
            return Ok(());
        }
        let what =
            format!("checksum table: its checksum is {stored:08x}, its bytes give {computed:08x}");
        Err(self.wrong(segment, self.places.table, &what))
    }

    fn wrong(&self, segment: &UncachedSegment, offset: u64, what: &str) -> Error {
        let what = format!("{what} (blob {})", self.digest);
        Error::corrupt(segment.path(), offset, what)
    }
}
