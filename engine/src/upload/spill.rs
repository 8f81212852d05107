//! The part of an upload that is in a dedicated segment.
//!
//! Owns: writes in flight, pacing of syncs, upload checkpoints. Refuses: hashing and windows (`body`).
//!
//! Invariants: at most [`WRITES_IN_FLIGHT`] windows are being written and a bounded number of bytes is
//! unsynced; a checkpoint names only bytes that were synced before it was written. Every wait can be given up and
//! taken up again. What was not attempted costs nothing: the next step that waits tries it again.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::body::Shared;
use super::digestion::Digestion;
use super::log::LogFile;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::checksum::check_chunks;
use crate::format::record::DEDICATED_PAYLOAD;
use crate::format::upload_log::UploadHeader;
use crate::in_flight::InFlight;
use crate::io::Class;
use crate::io::exact::read_exact;
use crate::limits::{CHUNK_BYTES, READ_BYTES_MAX};
use crate::memory::{ReadPool, Reading};
use crate::segment::{AbandonGuard, DedicatedWriter, SegmentFile};

/// Windows being written at once.
const WRITES_IN_FLIGHT: usize = 2;
/// Bytes after which the kernel is asked to start writing back.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// How far the payload has got on its way to the disk.
#[derive(Debug)]
pub(super) struct Spill {
    shared: Arc<Shared>,
    // `None` once the segment was handed over, left behind or abandoned.
    writer: Option<DedicatedWriter>,
    writes: VecDeque<Write>,
    syncing: Option<Syncing>,
    finishing: Option<Finishing>,
    /// A finish that was given up before its end: the next one need not repeat it.
    finished: Option<(Digest, Extent)>,
    /// Payload whose write returned.
    written: u64,
    /// Payload that the last sync to return covered, and the last one to start.
    synced: u64,
    sync_started: u64,
    writeback_started: u64,
    header: UploadHeader,
    // `None` while a sync that appends to it is in flight.
    log: Option<LogFile>,
    /// Payload and whole chunks that the log names.
    recorded: u64,
    recorded_chunks: u64,
    /// The descriptor was given to another upload before the log named all bytes.
    behind: bool,
}

#[derive(Debug)]
struct Write {
    offset: u64,
    end: u64,
    pieces: Vec<Bytes>,
    /// `None` if it has to be begun again.
    work: Option<InFlight<Result<()>>>,
}

#[derive(Debug)]
struct Syncing {
    end: u64,
    work: InFlight<Synced>,
}

#[derive(Debug)]
struct Finishing {
    digest: Digest,
    work: InFlight<Result<Extent>>,
}

#[derive(Debug)]
struct Synced {
    outcome: Result<()>,
    /// The log, if it was appended to, and the chunks that it names now.
    log: Option<(LogFile, Option<u64>)>,
}

impl Spill {
    pub(super) fn new(
        shared: Arc<Shared>,
        writer: DedicatedWriter,
        header: UploadHeader,
        log: LogFile,
    ) -> Self {
        Self {
            shared,
            writer: Some(writer),
            writes: VecDeque::new(),
            syncing: None,
            finishing: None,
            finished: None,
            written: 0,
            synced: 0,
            sync_started: 0,
            writeback_started: 0,
            header,
            log: Some(log),
            recorded: 0,
            recorded_chunks: 0,
            behind: false,
        }
    }

    /// Counts `length` bytes as written, synced and named by the log: after a restart.
    pub(super) fn at(mut self, length: u64) -> Self {
        (self.written, self.synced, self.sync_started) = (length, length, length);
        (self.writeback_started, self.recorded) = (length, length);
        self.recorded_chunks = length / CHUNK_BYTES as u64;
        self
    }

    fn writer(&mut self) -> &mut DedicatedWriter {
        match &mut self.writer {
            Some(writer) => writer,
            None => unreachable!("an upload that ended is not written to"),
        }
    }

    /// Bytes that are being written.
    pub(super) fn bytes_in_flight(&self) -> u64 {
        let bytes = |write: &Write| write.end - write.offset;
        self.writes.iter().map(bytes).sum()
    }

    /// Bytes of its segment on disk, reserved ones and those that were taken back included.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        self.writer.as_ref().map_or(0, DedicatedWriter::end)
    }

    /// Whether a sync of its segment failed: then its bytes count as lost.
    pub(super) fn is_sync_failed(&self) -> bool {
        self.writer
            .as_ref()
            .is_some_and(DedicatedWriter::is_sync_failed)
    }

    /// Whether it has a descriptor.
    pub(super) fn is_open(&self) -> bool {
        self.writer.as_ref().is_some_and(DedicatedWriter::is_open)
    }

    /// Opens the file where [`Spill::close`] closed it.
    pub(super) async fn reopen(&mut self) -> Result<()> {
        self.writer().reopen().await
    }

    /// As [`Spill::reopen`], without waiting for others: whether the file is open.
    pub(super) async fn try_reopen(&mut self) -> Result<bool> {
        self.writer().try_reopen().await
    }

    /// Gives the descriptor back, and the space after what was written; the bytes are synced.
    pub(super) async fn close(&mut self) -> Result<()> {
        self.settle().await?;
        // Table and frame of a finish that is not handed over stay.
        if self.finished.is_none() {
            let end = self.written;
            self.writer().cut_to(end).await;
        }
        self.writer().close();
        Ok(())
    }

    /// Gives the descriptor to an upload that waits for one; all bytes of `digestion` are synced before.
    pub(super) async fn release_descriptor(&mut self, digestion: &Digestion) -> Result<()> {
        self.settle().await?;
        let length = digestion.length();
        if self.is_open() && self.synced < length {
            self.start_sync(digestion, false);
            self.settle_sync().await?;
        }
        self.behind = !self.is_recorded(length);
        self.writer().close();
        Ok(())
    }

    /// Whether [`Spill::release_descriptor`] left bytes that the log does not name.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Whether all of `length` bytes is synced and, where there is a log, named by it.
    pub(super) fn is_recorded(&self, length: u64) -> bool {
        let named = self.recorded == length || self.log.as_ref().is_some_and(|log| !log.usable());
        let settled = self.writes.is_empty() && self.syncing.is_none();
        settled && self.finishing.is_none() && self.synced >= length && named
    }

    /// Starts writing `pieces` at `offset` of the payload.
    pub(super) fn start_write(&mut self, offset: u64, pieces: Vec<Bytes>) {
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.finished = None;
        let work = InFlight::start(self.writer().write(offset, pieces.clone()));
        self.writes.push_back(Write {
            offset,
            end: offset + bytes,
            pieces,
            work: Some(work),
        });
    }

    /// Waits until one more window may be written with `unsynced_max` bytes unsynced at most.
    pub(super) async fn make_room(&mut self, submitted: u64, unsynced_max: u64) -> Result<()> {
        self.settle_writes(WRITES_IN_FLIGHT - 1).await?;
        if submitted.saturating_sub(self.synced) >= unsynced_max {
            self.settle_sync().await?;
        }
        Ok(())
    }

    /// Waits until at most `left` writes are in flight.
    pub(super) async fn settle_writes(&mut self, left: usize) -> Result<()> {
        // Of a request that was given up: its write must not land on top of a later one.
        self.settle_finish().await?;
        while self.writes.len() > left
            && let Some(write) = self.writes.front_mut()
        {
            let Some(work) = &mut write.work else {
                self.begin_again().await?;
                continue;
            };
            let (outcome, end) = (work.done().await.take(), write.end);
            match outcome.unwrap_or(Err(Error::Closed)) {
                Ok(()) => self.writes.pop_front(),
                Err(error) => {
                    write.work = None;
                    return Err(error);
                }
            };
            self.written = end;
            if end.saturating_sub(self.writeback_started) >= WRITEBACK_BYTES {
                self.start_writeback();
            }
        }
        Ok(())
    }

    /// Begins the first write again.
    async fn begin_again(&mut self) -> Result<()> {
        self.reopen().await?;
        let first = self.writes.front();
        let Some((offset, pieces)) = first.map(|write| (write.offset, write.pieces.clone())) else {
            return Ok(());
        };
        let work = InFlight::start(self.writer().write(offset, pieces));
        if let Some(write) = self.writes.front_mut() {
            write.work = Some(work);
        }
        Ok(())
    }

    fn start_writeback(&mut self) {
        let (from, length) = (
            self.writeback_started,
            self.written - self.writeback_started,
        );
        self.writeback_started = self.written;
        let file = self.writer().file().share();
        // A hint: its result tells nothing that the sync does not tell.
        drop(InFlight::start(async move {
            file.start_writeback(Class::UploadWrite.call(), DEDICATED_PAYLOAD + from, length)
                .await
        }));
    }

    /// Waits for the sync in flight, if there is one.
    pub(super) async fn settle_sync(&mut self) -> Result<()> {
        let Some(syncing) = &mut self.syncing else {
            return Ok(());
        };
        let (done, end) = (syncing.work.done().await.take(), syncing.end);
        self.syncing = None;
        let Some(done) = done else {
            return Err(Error::Closed);
        };
        if let Some((log, chunks)) = done.log {
            if let Some(chunks) = chunks {
                (self.recorded, self.recorded_chunks) = (end, chunks);
            } else if !log.usable() {
                // It is removed, with all that it named.
                (self.recorded, self.recorded_chunks) = (0, 0);
            }
            self.log = Some(log);
        }
        if done.outcome.is_err() {
            // Not attempted, or the upload is over: the next one that is due covers these bytes, too.
            self.sync_started = self.synced;
        }
        done.outcome?;
        self.synced = self.synced.max(end);
        Ok(())
    }

    /// Starts a sync, with a checkpoint of `digestion` where that is due. All bytes of `digestion` were handed to
    /// [`Spill::start_write`], and no others.
    pub(super) async fn pace(
        &mut self,
        digestion: &Digestion,
        sync_every: u64,
        record_every: u64,
    ) -> Result<()> {
        if let Some(syncing) = &mut self.syncing {
            // Its checkpoint follows the sync, and it may be a long time until a step waits for it.
            syncing.work.nudge();
        }
        let length = digestion.length();
        if self.recorded > length {
            // Going back was given up before its checkpoint: no byte that the log names may change before that.
            self.record(digestion).await?;
        }
        let record = length.saturating_sub(self.recorded) >= record_every;
        if !record && length.saturating_sub(self.sync_started) < sync_every {
            return Ok(());
        }
        if self.syncing.is_some() && length.saturating_sub(self.synced) < 2 * sync_every {
            return Ok(());
        }
        self.settle_sync().await?;
        self.settle_writes(0).await?;
        self.start_sync(digestion, record);
        Ok(())
    }

    fn start_sync(&mut self, digestion: &Digestion, record: bool) {
        let length = digestion.length();
        let sync = self.writer().sync();
        let log = if record {
            self.log.take_if(|log| log.usable())
        } else {
            None
        };
        let first = self.recorded_chunks.min(length / CHUNK_BYTES as u64);
        let unix_ms = self.shared.env.clock.wall_unix_ms();
        let checkpoint = digestion.checkpoint(first, unix_ms);
        let header = self.header.clone();
        // Bytes that the log names are written again after this, so it must not stay as it is.
        let is_log_ahead = self.is_log_ahead_of(length);
        let work = InFlight::start(async move {
            let outcome = sync.await;
            let Some(mut log) = log else {
                return Synced { outcome, log: None };
            };
            if outcome.is_err() {
                return Synced {
                    outcome,
                    log: Some((log, None)),
                };
            }
            let chunks = match log.append(&header, &checkpoint).await {
                Ok(()) => Some(length / CHUNK_BYTES as u64),
                Err(error) => {
                    tracing::warn!(%error, "an upload will not survive a restart");
                    if is_log_ahead {
                        log.remove();
                    }
                    None
                }
            };
            Synced {
                outcome,
                log: Some((log, chunks)),
            }
        });
        self.sync_started = length;
        self.syncing = Some(Syncing { end: length, work });
    }

    /// Writes a checkpoint of all bytes now.
    pub(super) async fn record(&mut self, digestion: &Digestion) -> Result<()> {
        self.settle().await?;
        self.behind = false;
        if self.is_recorded(digestion.length()) {
            return Ok(());
        }
        self.reopen().await?;
        self.start_sync(digestion, true);
        self.settle_sync().await
    }

    /// Nothing is on its way to the disk any more.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.settle_writes(0).await?;
        self.settle_sync().await
    }

    /// Waits until no write is in flight, whatever comes of it: it is taken up where its result counts.
    async fn end_writes(&mut self) {
        for write in &mut self.writes {
            if let Some(work) = &mut write.work {
                work.done().await;
            }
        }
    }

    /// Waits for what is in flight, whatever comes of the writes, so that nothing uses the file any more.
    pub(super) async fn end_operations(&mut self) -> Result<()> {
        self.end_writes().await;
        self.settle_sync().await
    }

    /// As [`Spill::settle`], before [`Spill::back_to`] to `length`: a write of later bytes that found no space, or was not
    /// attempted, is dropped instead of begun again.
    pub(super) async fn settle_for(&mut self, length: u64) -> Result<()> {
        let is_needless = |error: &Error| error.is_no_space() || error.is_not_attempted();
        match self.settle_finish().await {
            Err(error) if !is_needless(&error) || self.is_sync_failed() => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.end_writes().await;
        while let Some(write) = self.writes.back().filter(|write| write.offset >= length) {
            if let Some(InFlight::Done(Some(Err(error)))) = &write.work
                && !is_needless(error)
            {
                return Err(error.clone());
            }
            self.writes.pop_back();
        }
        self.settle().await
    }

    /// Goes back to `length` bytes, after [`Spill::settle_for`]. Bytes after it will be written again, and a checkpoint
    /// that named them is replaced before.
    pub(super) fn back_to(&mut self, length: u64) {
        assert!(
            self.writes.is_empty() && self.syncing.is_none(),
            "an upload goes back while bytes are on their way"
        );
        self.finished = None;
        self.written = self.written.min(length);
        self.synced = self.synced.min(length);
        self.sync_started = self.sync_started.min(length);
        self.writeback_started = self.writeback_started.min(length);
    }

    /// Whether the log names more than `length` bytes.
    pub(super) fn is_log_ahead_of(&self, length: u64) -> bool {
        self.recorded > length
    }

    /// Hashes the first `length` bytes of the payload again, each chunk checked against `table`.
    pub(super) async fn hash_again(
        &mut self,
        pool: &ReadPool,
        algorithm: Algorithm,
        length: u64,
        table: &[u32],
    ) -> Result<Hasher> {
        self.settle_writes(0).await?;
        self.reopen().await?;
        let (env, file) = (self.shared.env.clone(), Arc::clone(self.writer().file()));
        let mut hasher = Hasher::new(algorithm);
        let window = READ_BYTES_MAX / 2;
        let mut entries = table.chunks(window / CHUNK_BYTES);
        let mut offset = 0;
        while offset < length {
            let entries = entries.next().unwrap_or_default().to_vec();
            let bytes = usize::try_from(length - offset).map_or(window, |left| left.min(window));
            let piece = read_piece(pool, &file, offset, bytes).await?;
            let hashed = env.compute(move || {
                check_chunks(&piece, &entries)?;
                hasher.update(&piece);
                Ok(hasher)
            });
            let checked: Option<std::result::Result<Hasher, (usize, _)>> = hashed.await;
            hasher = checked.ok_or(Error::Closed)?.map_err(
                |(at, what): (usize, crate::format::codec::Malformed)| {
                    Error::corrupt(file.path(), DEDICATED_PAYLOAD + offset + at as u64, what.0)
                },
            )?;
            offset += bytes as u64;
        }
        Ok(hasher)
    }

    /// The payload of a small upload, read back; each chunk is checked.
    pub(super) async fn read_back(
        &mut self,
        pool: &ReadPool,
        digestion: &Digestion,
    ) -> Result<Bytes> {
        self.settle_writes(0).await?;
        self.reopen().await?;
        let file = Arc::clone(self.writer().file());
        let bytes = usize::try_from(digestion.length()).unwrap_or(usize::MAX);
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        let piece = read_piece(pool, &file, 0, bytes).await?;
        match check_chunks(&piece, &digestion.table()) {
            Ok(()) => Ok(piece),
            Err((at, what)) => {
                let at = DEDICATED_PAYLOAD + at as u64;
                Err(Error::corrupt(file.path(), at, what.0))
            }
        }
    }

    /// Completes the record after the payload and makes all of it durable.
    pub(super) async fn finish(&mut self, digest: Digest, digestion: &Digestion) -> Result<Extent> {
        self.settle().await?;
        self.reopen().await?;
        let length = digestion.length();
        if let Some((earlier, extent)) = self.finished
            && (earlier, extent.length) == (digest, length)
        {
            return Ok(extent);
        }
        let work = InFlight::start(self.writer().finish(length, digest, &digestion.table()));
        self.finishing = Some(Finishing { digest, work });
        self.settle_finish().await?;
        self.finished.map(|(_, extent)| extent).ok_or(Error::Closed)
    }

    async fn settle_finish(&mut self) -> Result<()> {
        let Some(finishing) = &mut self.finishing else {
            return Ok(());
        };
        let (digest, done) = (finishing.digest, finishing.work.done().await.take());
        self.finishing = None;
        self.finished = done.transpose()?.map(|extent| (digest, extent));
        Ok(())
    }

    /// The upload is over: removes its log and hands over its segment.
    pub(super) fn hand_over(&mut self) -> AbandonGuard {
        if let Some(log) = &mut self.log {
            log.remove();
        }
        match self.writer.take() {
            Some(mut writer) => writer.take_guard(),
            None => unreachable!("an upload ends once"),
        }
    }

    /// The upload is over without a result: its log and its segment go.
    pub(super) fn abandon(&mut self) {
        if self.writer.is_some() {
            drop(self.hand_over());
        }
        if let Some(mut syncing) = self.syncing.take() {
            // It has the log, and may be making its file just now.
            let task = async move {
                let done = syncing.work.done().await.take();
                if let Some((mut log, _)) = done.and_then(|done| done.log) {
                    log.remove();
                }
            };
            let spawn = &self.shared.env.spawn;
            spawn.spawn("remove upload log", Box::pin(task));
        }
    }
}

impl Drop for Spill {
    /// A store that closes leaves behind what can be resumed.
    fn drop(&mut self) {
        if self.recorded > 0
            && let Some(writer) = self.writer.take()
        {
            writer.leave();
        }
    }
}

async fn read_piece(
    pool: &ReadPool,
    file: &Arc<SegmentFile>,
    offset: u64,
    bytes: usize,
) -> Result<Bytes> {
    let buffer = pool.take(bytes, &Reading::internal()).await;
    let read = read_exact(
        file.file(),
        Class::UploadWrite.call(),
        DEDICATED_PAYLOAD + offset,
        buffer,
    )
    .await;
    read.map(crate::buffer::Buffer::freeze)
        .map_err(|error| Error::io("read segment", file.path(), error))
}
