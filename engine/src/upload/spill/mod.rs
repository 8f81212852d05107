//! The part of an upload that is in a dedicated segment.
//!
//! Owns: writes in flight, pacing of syncs, upload checkpoints. Refuses: hashing and windows (`body`).
//!
//! Invariants: at most [`WRITES_IN_FLIGHT`] windows are being written, and a bounded number of bytes is unsynced. A
//! checkpoint names only bytes that were synced before it was written. Every wait can be given up and resumed. An
//! operation that was not attempted loses nothing: the next step that waits repeats it.

mod reading;
mod rollback;
mod syncs;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::log::LogFile;
use super::payload_hash::{PayloadHash, Progress};
use super::shared::Shared;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::upload_log::UploadHeader;
use crate::in_flight::InFlight;
use crate::segment::{AbandonGuard, DedicatedWriter};
use crate::vocabulary::ClientId;

use syncs::Syncing;

/// Most windows being written at once.
const WRITES_IN_FLIGHT: usize = 2;

/// How far the payload has got on its way to the disk.
#[derive(Debug)]
pub(super) struct Spill {
    shared: Arc<Shared>,
    // `None` once the segment was taken, left for a resume or abandoned.
    writer: Option<DedicatedWriter>,
    writes: VecDeque<Write>,
    syncing: Option<Syncing>,
    finishing: Option<Finishing>,
    /// A finish that was given up after it succeeded: the next one need not repeat it.
    finished: Option<(Digest, Extent)>,
    /// Bytes of payload whose write returned.
    written: u64,
    /// Bytes of payload that the last completed sync covered, and that the last started one covers.
    synced: u64,
    sync_started: u64,
    header: UploadHeader,
    // `None` while a sync that appends to it is in flight.
    log: Option<LogFile>,
    /// Bytes of payload that the log names; `None` while no log can be resumed.
    recorded: Option<u64>,
    /// The descriptor was given to another upload before the log named all bytes.
    behind: bool,
}

#[derive(Debug)]
struct Write {
    offset: u64,
    end: u64,
    pieces: Vec<Bytes>,
    /// `None` if the write must be repeated.
    work: Option<InFlight<Result<()>>>,
}

#[derive(Debug)]
struct Finishing {
    digest: Digest,
    work: InFlight<Result<Extent>>,
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
            header,
            log: Some(log),
            recorded: None,
            behind: false,
        }
    }

    /// Counts `length` bytes as written, synced and named by the log, after a restart.
    pub(super) fn at(mut self, length: u64) -> Self {
        (self.written, self.synced, self.sync_started) = (length, length, length);
        self.recorded = Some(length);
        self
    }

    fn writer(&mut self) -> &mut DedicatedWriter {
        match &mut self.writer {
            Some(writer) => writer,
            None => unreachable!("an upload that ended is not written to"),
        }
    }

    /// Counts what follows as work of `client`.
    pub(super) fn set_client(&mut self, client: ClientId) {
        if let Some(writer) = &mut self.writer {
            writer.set_client(client);
        }
    }

    /// Returns the bytes that are being written.
    pub(super) fn bytes_in_flight(&self) -> u64 {
        let bytes = |write: &Write| write.end - write.offset;
        self.writes.iter().map(bytes).sum()
    }

    /// Returns the bytes of its segment on disk, including reserved ones and those that were rolled back.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        self.writer.as_ref().map_or(0, DedicatedWriter::end)
    }

    /// Reserves space ahead of the writes up to `length` bytes of payload.
    pub(super) fn announce(&mut self, length: u64) {
        if let Some(writer) = &mut self.writer {
            writer.announce(length);
        }
    }

    /// Returns whether a sync of its segment failed; then its bytes count as lost.
    pub(super) fn is_sync_failed(&self) -> bool {
        self.writer
            .as_ref()
            .is_some_and(DedicatedWriter::is_sync_failed)
    }

    /// Returns whether it has a descriptor.
    pub(super) fn is_open(&self) -> bool {
        self.writer.as_ref().is_some_and(DedicatedWriter::is_open)
    }

    /// Opens the file again if [`Spill::close`] closed it.
    pub(super) async fn reopen(&mut self) -> Result<()> {
        self.writer().reopen().await
    }

    /// Opens the file again if a descriptor is free; returns whether the file is open.
    pub(super) async fn try_reopen(&mut self) -> Result<bool> {
        self.writer().try_reopen().await
    }

    /// Closes the descriptor and frees the space after the written bytes. The bytes are synced.
    pub(super) async fn close(&mut self) -> Result<()> {
        self.settle().await?;
        // Table and frame of a finish whose segment was not taken stay.
        if self.finished.is_none() {
            let end = self.written;
            self.writer().cut_to(end).await;
        }
        self.writer().close();
        Ok(())
    }

    /// Gives the descriptor to an upload that waits for one, after all bytes of `progress` are synced.
    pub(super) async fn release_descriptor(&mut self, progress: Progress<'_>) -> Result<()> {
        self.settle().await?;
        let length = progress.length();
        if self.is_open() && self.synced < length {
            self.start_sync(progress, false);
            self.settle_sync().await?;
        }
        self.behind = !self.is_recorded(length, progress.named());
        self.writer().close();
        Ok(())
    }

    /// Returns whether [`Spill::release_descriptor`] left bytes that the log does not name.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Starts writing `pieces` at `offset` of the payload.
    pub(super) fn start_write(&mut self, offset: u64, pieces: Vec<Bytes>) {
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.finished = None;
        for write in &mut self.writes {
            // It has two operations, and it may be long until a step waits for it.
            if let Some(work) = &mut write.work {
                work.nudge();
            }
        }
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
        // The finish of a request that was given up must not overwrite a later write.
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
        }
        Ok(())
    }

    /// Repeats the first write.
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

    /// Waits until no operation on the file is in flight.
    pub(super) async fn settle(&mut self) -> Result<()> {
        self.settle_writes(0).await?;
        self.settle_sync().await
    }

    /// Waits until no write is in flight; the results are used later.
    async fn end_writes(&mut self) {
        for write in &mut self.writes {
            if let Some(work) = &mut write.work {
                work.done().await;
            }
        }
    }

    /// Waits for everything in flight, whatever the outcome of the writes, so that nothing uses the file any more.
    pub(super) async fn end_operations(&mut self) -> Result<()> {
        self.end_writes().await;
        self.settle_sync().await
    }

    /// Completes the record after the payload and makes all of it durable.
    pub(super) async fn finish(
        &mut self,
        digest: Digest,
        payload_hash: &PayloadHash,
    ) -> Result<Extent> {
        self.settle().await?;
        self.reopen().await?;
        let length = payload_hash.length();
        if let Some((earlier, extent)) = self.finished
            && (earlier, extent.length) == (digest, length)
        {
            return Ok(extent);
        }
        let work = InFlight::start(self.writer().finish(length, digest, &payload_hash.table()));
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

    /// Ends the upload: removes its log and returns its segment.
    ///
    /// # Panics
    /// If it was called before.
    pub(super) fn take_segment(&mut self) -> AbandonGuard {
        if let Some(log) = &mut self.log {
            log.remove();
        }
        match self.writer.take() {
            Some(mut writer) => writer.take_guard(),
            None => unreachable!("an upload ends once"),
        }
    }

    /// Ends the upload without a result: removes its log and its segment.
    pub(super) fn abandon(&mut self) {
        if self.writer.is_some() {
            drop(self.take_segment());
        }
        if let Some(syncing) = self.syncing.take() {
            let spawn = &self.shared.env.spawn;
            spawn.spawn("remove upload log", Box::pin(syncing.remove_log()));
        }
    }
}

impl Drop for Spill {
    /// Leaves the segment and log of an upload that can be resumed, when the store closes.
    fn drop(&mut self) {
        if self.recorded.is_some()
            && let Some(writer) = self.writer.take()
        {
            writer.keep_unfinished();
        }
    }
}
