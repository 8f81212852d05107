//! The verifying reader of one blob.
//!
//! Owns: windows, read-ahead, and the check of every chunk on every read. Refuses: finding blobs (index) and healing
//! them. Damage is marked, and the read ends in an error.
//!
//! Invariants: no byte is returned that was not checked in this read, by a checksum table that a frame ties to the
//! blob. A leading frame is checked on every read. A trailing one is checked once for each handle, and later each slice
//! of the table must be unchanged. Memory comes from the pool's budget. A dropped stream does no further work.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

use super::damaged::Damaged;
use super::files::{SegmentFile, SegmentFiles};
use super::mapped;
use super::record_check::SliceChecksums;
use super::scan_resistance::ScanResistance;
use crate::buffer::Buffer;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Layout};
use crate::format::checksum::{check_chunks, decode_table};
use crate::format::codec::{RunningChecksum, checksum};
use crate::format::record::{FRAME_BYTES, FoundFrame, RecordPlaces, table_bytes};
use crate::in_flight::InFlight;
use crate::io::exact::read_up_to;
use crate::io::{Class, File, FileRef};
use crate::limits::{CHUNK_BYTES, READ_BYTES_MAX};
use crate::memory::{ReadAhead, ReadPool, Reading};
use crate::sync::Mutex;
use crate::vocabulary::ClientId;

/// Payload of the first window of a stream, and of each that is copied from memory, in bytes. It is still in the
/// processor's cache when it is written to the socket, and a client that hangs up leaves little that was read for
/// nothing. Each window is at most twice the one before.
const WINDOW_HOT_BYTES: u64 = 256 << 10;
/// Payload of a mapped window, which begins at a multiple of this. So all readers of a blob have the same ones.
const WINDOW_MAPPED_BYTES: u64 = 1 << 20;
/// Payload of the largest window after one that came from the disk.
const WINDOW_COLD_BYTES: u64 = READ_BYTES_MAX as u64;
/// Such windows that are read ahead at most. With the one that is sent they are the share of a connection in 64 MiB for
/// reads. Less memory or more answers at once mean fewer.
const WINDOWS_AHEAD_MAX: usize = 3;
/// Bytes that are read from memory and checked at once. They are still in the processor's nearest caches when they are
/// checked.
const STEP_BYTES: usize = 128 << 10;
/// Bytes of table that are read, checked and kept at once: 4 KiB, for 64 MiB of payload.
const TABLE_SLICE_BYTES: usize = 4 << 10;
const TABLE_SLICE_ENTRIES: u64 = (TABLE_SLICE_BYTES / 4) as u64;
/// Bytes of table that are read at once to check a whole one: enough for 4 GiB of payload.
const TABLE_READ_BYTES: u64 = 64 * TABLE_SLICE_BYTES as u64;

const CHUNK: u64 = CHUNK_BYTES as u64;

/// One blob, open for reading. Cheap to clone. Keeps the bytes readable until it drops, even if they are collected.
#[derive(Debug, Clone)]
pub struct BlobReader {
    source: Arc<Source>,
    /// Checksums of the table's slices in a dedicated segment.
    slices: SliceChecksums,
}

/// What all readers of a store share.
#[derive(Debug)]
pub(super) struct ReaderContext {
    pub(super) pool: ReadPool,
    pub(super) damaged: Arc<Damaged>,
    pub(super) scan_resistance: ScanResistance,
}

#[derive(Debug)]
struct Source {
    file: Arc<SegmentFile>,
    store: [u8; 16],
    context: Arc<ReaderContext>,
    extent: Extent,
    places: RecordPlaces,
    digest: Digest,
    client: ClientId,
    /// For a huge blob: the file, for reads that leave nothing in the page cache.
    dontcache: Option<FileRef>,
}

/// Why a blob could not be opened.
#[derive(Debug)]
pub(crate) struct OpenFailure {
    /// The error.
    pub(crate) error: Error,
    /// What it says about the blob, if that is still in this place.
    finding: Finding,
}

#[derive(Debug)]
enum Finding {
    Nothing,
    /// Its bytes are not there.
    Wrong,
    /// These bytes of its segment could not be read.
    Unreadable(Range<u64>),
}

impl OpenFailure {
    /// Makes a failure that says nothing about the blob, or nothing new.
    pub(super) fn known(error: Error) -> Self {
        Self {
            error,
            finding: Finding::Nothing,
        }
    }

    /// Marks what was found, because the blob is in this place.
    pub(super) fn mark(self, damaged: &Damaged, digest: Digest, extent: Extent) -> Error {
        match self.finding {
            Finding::Nothing => {}
            Finding::Wrong => damaged.mark_wrong(digest, extent),
            Finding::Unreadable(span) => damaged.mark_unreadable(digest, extent, span),
        }
        self.error
    }
}

impl BlobReader {
    /// Opens the segment of `extent`, where the index says `digest` is. A failure marks nothing yet: the blob may have
    /// moved since the index was read.
    pub(super) async fn open(
        files: &Arc<SegmentFiles>,
        context: Arc<ReaderContext>,
        (digest, extent): (Digest, Extent),
        client: ClientId,
    ) -> std::result::Result<Self, OpenFailure> {
        let places = RecordPlaces::of(&extent).map_err(|what| OpenFailure {
            error: Error::corrupt(&files.path(extent.segment), extent.offset, what.0),
            finding: Finding::Wrong,
        })?;
        let opening = files.open_for_client(extent.segment, client, context.pool.memory());
        let file = opening.await.map_err(|error| {
            let finding = if matches!(error, Error::Corrupt(_)) {
                Finding::Wrong
            } else if matches!(error, Error::Io { .. }) {
                // The file is missing, not readable or not regular. An operator may fix that while the store is open,
                // and the frame is read after every opening.
                Finding::Unreadable(places.frame..places.frame + FRAME_BYTES as u64)
            } else {
                // An operation that was not attempted says nothing.
                Finding::Nothing
            };
            OpenFailure { error, finding }
        })?;
        let huge = context.scan_resistance.is_huge(extent.length);
        let source = Source {
            dontcache: huge.then(|| file.file().dontcache()).flatten(),
            file,
            store: files.store(),
            context,
            extent,
            places,
            digest,
            client,
        };
        let source = Arc::new(source);
        // Reads of this layout use only payload and table.
        let slices = if extent.layout == Layout::Trailing {
            let check = Arc::clone(&source).check_trailing();
            let checked = source.file.record_check().run(check).await;
            checked.map_err(|error| OpenFailure {
                error,
                finding: Finding::Nothing,
            })?
        } else {
            Arc::default()
        };
        Ok(Self { source, slices })
    }

    /// Returns the blob's length in bytes.
    pub fn len(&self) -> u64 {
        self.source.extent.length
    }

    /// Returns whether the blob is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the blob's digest.
    pub fn digest(&self) -> Digest {
        self.source.digest
    }

    /// Streams the bytes of `range`, cut at the blob's end, reading on demand. For callers that drop each piece at
    /// once.
    pub fn read(&self, range: Range<u64>) -> BlobStream {
        self.read_for(range, Reading::internal())
    }

    /// Streams the bytes of `range` on a client's account: the next piece comes once the one before was dropped.
    pub fn read_for(&self, range: Range<u64>, reading: Reading) -> BlobStream {
        BlobStream {
            source: Arc::clone(&self.source),
            slices: Arc::clone(&self.slices),
            reading,
            position: range.start,
            end: range.end.min(self.len()),
            window: WINDOW_HOT_BYTES,
            table: TableSlice::default(),
            ahead: VecDeque::new(),
        }
    }
}

/// Bytes of a blob, window by window.
#[derive(Debug)]
pub struct BlobStream {
    source: Arc<Source>,
    slices: SliceChecksums,
    reading: Reading,
    position: u64,
    end: u64,
    window: u64,
    table: TableSlice,
    /// The next windows, in order.
    ahead: VecDeque<Arc<NextWindow>>,
}

/// Checksums of consecutive chunks.
#[derive(Debug, Default)]
struct TableSlice {
    first: u64,
    entries: Vec<u32>,
}

/// The read of the next window.
#[derive(Debug)]
struct NextWindow {
    span: Range<u64>,
    read: Mutex<Option<InFlight<Result<Fetched>>>>,
}

impl ReadAhead for NextWindow {
    fn bytes(&self) -> usize {
        let held = self.read.lock().is_some();
        usize::try_from(self.span.end - self.span.start)
            .map_or(0, |bytes| bytes * usize::from(held))
    }

    fn give_up(&self) {
        // Dropped without the lock, because a buffer returns to its pool.
        let read = self.read.lock().take();
        drop(read);
    }
}

/// Raw bytes of a span of the file.
#[derive(Debug)]
struct Fetched {
    buffer: Buffer,
    /// Whether the disk had to be read.
    cold: bool,
}

impl BlobStream {
    /// Returns the next piece, checked; `None` at the end. If the future is dropped, the next call continues at the
    /// same place.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.position >= self.end {
            return Ok(None);
        }
        self.reading.turn().await;
        if self.source.extent.layout == Layout::Leading
            && self.table.entries.is_empty()
            && self.source.places.end - self.source.places.frame <= WINDOW_HOT_BYTES
        {
            return self.whole_record().await.map(Some);
        }
        let span = match self.ahead.front() {
            Some(ahead) => ahead.span.clone(),
            None => self.span_at(self.position),
        };
        self.load_table(&span).await?;
        // It stays the first until its read is over: if this future is dropped, the next call reads it again.
        let ahead = self
            .ahead
            .front()
            .and_then(|ahead| ahead.read.lock().take());
        let fetched = match ahead {
            Some(mut read) => read.done().await.take(),
            None => None,
        };
        if fetched.is_none()
            && let Some(window) = self.map(&span).await
        {
            return Ok(Some(self.piece(&span, &window, false)));
        }
        // Not read ahead, or dropped since.
        let mut checked = 0;
        let fetched = if let Some(fetched) = fetched {
            fetched?
        } else {
            let source = Arc::clone(&self.source);
            let check = |read: &[u8]| self.check_whole_chunks(&span, read, &mut checked);
            source
                .fetch_payload(span.clone(), &self.reading, STEP_BYTES, check)
                .await?
        };
        self.check_rest(&span, fetched.buffer.filled(), checked)?;
        let cold = fetched.cold;
        Ok(Some(self.piece(&span, &fetched.buffer.freeze(), cold)))
    }

    /// Returns what is wanted of the checked bytes of `span`, and moves on.
    fn piece(&mut self, span: &Range<u64>, window: &Bytes, cold: bool) -> Bytes {
        let from = usize::try_from(self.position - span.start).unwrap_or(usize::MAX);
        let to = usize::try_from(self.end.min(span.end) - span.start).unwrap_or(usize::MAX);
        self.position = span.end.min(self.end);
        self.ahead.pop_front();
        if self.source.dontcache.is_some() {
            let cache = &self.source.context.scan_resistance;
            cache.remember(self.source.extent.segment, span);
        }
        let most = if cold {
            WINDOW_COLD_BYTES
        } else if self.reading.may_map() {
            WINDOW_MAPPED_BYTES
        } else {
            WINDOW_HOT_BYTES
        };
        self.window = (self.window * 2).min(most);
        self.read_ahead(cold);
        window.slice(from..to)
    }

    /// Maps a large window that follows others from memory. `None` if it has to be read. The last window of an answer
    /// is never mapped. So an answer that is aborted because of a mapped one is never complete for its client.
    async fn map(&self, span: &Range<u64>) -> Option<Bytes> {
        let length = span.end - span.start;
        if length != WINDOW_MAPPED_BYTES || span.end >= self.end || !self.reading.may_map() {
            return None;
        }
        let source = &self.source;
        let first = usize::try_from(span.start / CHUNK - self.table.first).ok()?;
        let chunks = usize::try_from(length / CHUNK).ok()?;
        let checksums = self.table.entries.get(first..first + chunks)?;
        let start = source.places.payload + span.start;
        let place = (start, usize::try_from(length).ok()?);
        let memory = (&source.context.pool, &self.reading);
        let window = mapped::map(source.file.file(), place, checksums, memory).await?;
        source.verified(start..start + length);
        Some(window)
    }

    /// Turns it into a [`Stream`] of the same bytes, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        futures_util::stream::try_unfold(self, |mut stream| async move {
            Ok(stream.next().await?.map(|piece| (piece, stream)))
        })
    }

    /// Returns the chunk-aligned window at `position`, which is smaller when memory for reads is short.
    fn span_at(&self, position: u64) -> Range<u64> {
        let start = position / CHUNK * CHUNK;
        let mut window = self.source.context.pool.window_bytes(self.window);
        if window == WINDOW_MAPPED_BYTES && self.reading.may_map() {
            window -= start % window;
        }
        let wanted = self
            .end
            .next_multiple_of(CHUNK)
            .min(self.source.extent.length);
        start..(start + window).min(wanted)
    }

    /// Starts reading the next windows, if the last one came from the disk and there is memory.
    fn read_ahead(&mut self, cold: bool) {
        let pool = &self.source.context.pool;
        while cold && self.ahead.len() < WINDOWS_AHEAD_MAX {
            let from = self
                .ahead
                .back()
                .map_or(self.position, |last| last.span.end);
            if from >= self.end {
                return;
            }
            let span = self.span_at(from);
            if !pool.has_room_ahead(&self.reading, span.end - span.start) {
                return;
            }
            let (source, reading) = (Arc::clone(&self.source), self.reading.clone());
            let to_read = span.clone();
            let read = InFlight::start(async move {
                // It is checked later.
                let unchecked = |_: &[u8]| Ok(());
                source
                    .fetch_payload(to_read, &reading, READ_BYTES_MAX, unchecked)
                    .await
            });
            let next = Arc::new(NextWindow {
                span,
                read: Mutex::new(Some(read)),
            });
            let noted: Arc<dyn ReadAhead> = Arc::clone(&next) as _;
            pool.note_ahead(&self.reading, &noted);
            self.ahead.push_back(next);
        }
    }

    /// Reads a small blob at once: frame, table, payload.
    async fn whole_record(&mut self) -> Result<Bytes> {
        let (source, places) = (Arc::clone(&self.source), self.source.places);
        let fetched = Arc::clone(&source)
            .fetch(places.frame..places.end, &self.reading)
            .await?;
        let (head, payload) = split(fetched.buffer.filled(), places.payload - places.frame);
        self.table = TableSlice {
            first: 0,
            entries: source.check_head(head)?,
        };
        // Only the requested chunks: damage elsewhere in the blob does not concern this read.
        let from = self.position / CHUNK * CHUNK;
        let to = self.end.next_multiple_of(CHUNK).min(source.extent.length);
        self.check(&(from..to), split(split(payload, to).0, from).1)?;
        let skip = places.payload - places.frame;
        let from = usize::try_from(skip + self.position).unwrap_or(usize::MAX);
        let to = usize::try_from(skip + self.end).unwrap_or(usize::MAX);
        self.position = self.end;
        Ok(fetched.buffer.freeze().slice(from..to))
    }

    /// Loads the checksums of `span`.
    async fn load_table(&mut self, span: &Range<u64>) -> Result<()> {
        let (first, last) = (span.start / CHUNK, (span.end - 1) / CHUNK);
        let known = self.table.first..self.table.first + self.table.entries.len() as u64;
        if known.contains(&first) && known.contains(&last) {
            return Ok(());
        }
        let source = Arc::clone(&self.source);
        let places = source.places;
        if source.extent.layout == Layout::Leading {
            let head = Arc::clone(&source)
                .fetch(places.frame..places.payload, &Reading::internal())
                .await?;
            self.table = TableSlice {
                first: 0,
                entries: source.check_head(head.buffer.filled())?,
            };
            return Ok(());
        }
        let slices = first / TABLE_SLICE_ENTRIES..last / TABLE_SLICE_ENTRIES + 1;
        let place = |slice| places.table + 4 * TABLE_SLICE_ENTRIES * slice;
        let end = places.table + table_bytes(source.extent.length);
        let (from, to) = (place(slices.start), end.min(place(slices.end)));
        let table = Arc::clone(&source)
            .fetch(from..to, &Reading::internal())
            .await?;
        let table = table.buffer.filled();
        for (slice, bytes) in slices.clone().zip(table.chunks(TABLE_SLICE_BYTES)) {
            let known = usize::try_from(slice)
                .ok()
                .and_then(|slice| self.slices.get(slice));
            let Some(known) = known else {
                unreachable!("the whole table was checked when the segment was opened")
            };
            source.check_table(*known, checksum(bytes))?;
        }
        source.verified(from..to);
        self.table = TableSlice {
            first: slices.start * TABLE_SLICE_ENTRIES,
            entries: decode_table(table),
        };
        Ok(())
    }

    /// Checks the whole chunks of `read`, the first bytes of `span`, that were not checked yet, and counts their bytes.
    fn check_whole_chunks(
        &self,
        span: &Range<u64>,
        read: &[u8],
        checked: &mut usize,
    ) -> Result<()> {
        let whole = read.len() / CHUNK_BYTES * CHUNK_BYTES;
        let Some(chunks) = read
            .get(*checked..whole)
            .filter(|chunks| !chunks.is_empty())
        else {
            return Ok(());
        };
        let start = span.start + *checked as u64;
        self.check(&(start..span.start + whole as u64), chunks)?;
        *checked = whole;
        Ok(())
    }

    /// Checks the chunks of `span`, whose bytes are `payload`, after the first `checked` bytes.
    fn check_rest(&self, span: &Range<u64>, payload: &[u8], checked: usize) -> Result<()> {
        match payload.get(checked..) {
            Some(rest) if !rest.is_empty() => {
                self.check(&(span.start + checked as u64..span.end), rest)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks the chunks of `span` (payload offsets), whose bytes are `payload`.
    fn check(&self, span: &Range<u64>, payload: &[u8]) -> Result<()> {
        let skip = usize::try_from(span.start / CHUNK - self.table.first).unwrap_or(usize::MAX);
        let table = self.table.entries.get(skip..).unwrap_or_default();
        check_chunks(payload, table).map_err(|(at, what)| {
            let offset = span.start + at as u64;
            let chunk = offset / CHUNK;
            self.source.damage(
                self.source.places.payload + offset,
                &format!("chunk {chunk}: {what}"),
            )
        })?;
        let (places, length) = (self.source.places, self.source.extent.length);
        let mut end = places.payload + span.end;
        if span.end == length {
            // The padding before a table that follows has no checksum, and no use.
            end = end.max(places.table);
        }
        self.source.verified(places.payload + span.start..end);
        Ok(())
    }
}

impl Source {
    async fn fetch_payload(
        self: Arc<Self>,
        span: Range<u64>,
        reading: &Reading,
        step: usize,
        check: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Fetched> {
        let start = self.places.payload;
        let in_file = start + span.start..start + span.end;
        let (cache, segment) = (&self.context.scan_resistance, self.extent.segment);
        let dontcache = self.dontcache.as_deref();
        let dontcache = dontcache.filter(|_| !cache.was_read(segment, span.start));
        let file = dontcache.unwrap_or(self.file.file());
        self.fetch_in_steps(file, in_file, reading, step, check)
            .await
    }

    /// Reads a span of the file, from memory where possible.
    async fn fetch(self: Arc<Self>, span: Range<u64>, reading: &Reading) -> Result<Fetched> {
        let file = self.file.file();
        self.fetch_in_steps(file, span, reading, READ_BYTES_MAX, |_| Ok(()))
            .await
    }

    /// Reads a span of the file, from memory where possible, in steps of `step` bytes. After each step from memory it
    /// passes all that was read so far to `check`. The rest is read at once.
    async fn fetch_in_steps(
        &self,
        file: &dyn File,
        span: Range<u64>,
        reading: &Reading,
        step: usize,
        mut check: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Fetched> {
        let wanted = usize::try_from(span.end - span.start).unwrap_or(usize::MAX);
        let mut buffer = self.context.pool.take(wanted, reading).await;
        while buffer.len() < wanted {
            let at = span.start + buffer.len() as u64;
            buffer.set_limit(wanted.min(buffer.len() + step));
            match file.read_cached(
                Class::ForegroundRead.call().for_client(self.client),
                at,
                &mut buffer,
            ) {
                Ok(count) if count > 0 => check(buffer.filled())?,
                // Not resident, the end, or an error: the backend finds out which.
                Ok(_) | Err(_) => break,
            }
        }
        buffer.set_limit(wanted);
        let cold = buffer.room() > 0;
        if cold {
            let at = span.start + buffer.len() as u64;
            buffer = read_up_to(
                file,
                Class::ForegroundRead.call().for_client(self.client),
                at,
                buffer,
            )
            .await
            .map_err(|error| {
                if error.was_attempted() {
                    self.context
                        .damaged
                        .mark_unreadable(self.digest, self.extent, at..span.end);
                }
                Error::io("read segment", self.file.path(), error)
            })?;
        }
        if buffer.room() > 0 {
            let end = span.start + buffer.len() as u64;
            return Err(self.damage(end, &format!("the file ends {} bytes early", buffer.room())));
        }
        Ok(Fetched { buffer, cold })
    }

    /// Checks that the frame after the payload is this blob's, and that the table is the frame's. Returns the checksums
    /// of the table's slices.
    async fn check_trailing(self: Arc<Self>) -> Result<SliceChecksums> {
        let places = self.places;
        // Memory is returned before more is requested: readers that hold some and wait for more can block each other.
        let found = {
            let frame = Arc::clone(&self)
                .fetch(places.frame..places.end, &Reading::internal())
                .await?;
            let frame = frame.buffer.filled();
            FoundFrame::decode_of(frame, &self.store, &self.digest, &self.extent)
                .map_err(|what| self.damage(places.frame, &what.0))?
        };
        let (mut at, end) = (places.table, places.table + table_bytes(self.extent.length));
        let mut computed = RunningChecksum::default();
        let mut slices = Vec::new();
        while at < end {
            let to = (at + TABLE_READ_BYTES).min(end);
            let slice = Arc::clone(&self)
                .fetch(at..to, &Reading::content(to - at))
                .await?;
            let table = slice.buffer.filled();
            computed.update(table);
            slices.extend(table.chunks(TABLE_SLICE_BYTES).map(checksum));
            at = to;
        }
        self.check_table(found.table_checksum, computed.finish())?;
        self.verified(places.table..places.end);
        Ok(slices.into())
    }

    /// Compares the known checksum of a table, or of a slice of it, with the one computed from its bytes.
    fn check_table(&self, stored: u32, computed: u32) -> Result<()> {
        if computed == stored {
            return Ok(());
        }
        let what =
            format!("checksum table: its checksum is {stored:08x}, its bytes give {computed:08x}");
        Err(self.damage(self.places.table, &what))
    }

    /// Checks frame and table of a leading record and returns the table.
    fn check_head(&self, head: &[u8]) -> Result<Vec<u32>> {
        let found = FoundFrame::decode_of(head, &self.store, &self.digest, &self.extent)
            .map_err(|what| self.damage(self.places.frame, &what.0))?;
        let (_, table) = split(head, FRAME_BYTES as u64);
        let (table, _) = split(table, table_bytes(self.extent.length));
        self.check_table(found.table_checksum, checksum(table))?;
        self.verified(self.places.frame..self.places.payload);
        Ok(decode_table(table))
    }

    /// Clears earlier read failures of a span of the file that was now read and checked.
    fn verified(&self, span: Range<u64>) {
        self.context
            .damaged
            .verified(&self.digest, &self.extent, &span);
    }

    /// Marks the blob as damaged and makes the error that says where.
    fn damage(&self, offset: u64, what: &str) -> Error {
        self.context.damaged.mark_wrong(self.digest, self.extent);
        Error::corrupt(
            self.file.path(),
            offset,
            format!("{what} (blob {})", self.digest),
        )
    }
}

/// Splits at `at`, or at the end if there is less.
fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len()))
}
