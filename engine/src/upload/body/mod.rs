//! The pipeline of one upload: received pieces become windows, and each full window is hashed and written while the
//! next one is received.
//!
//! Owns: windows, and where the bytes are stored (memory, then a dedicated segment). Refuses: sessions and names
//! (`session`, `sessions`).
//!
//! Invariants: `offset = submitted + pending`. Submitted windows are hashed in order, one at a time. Every wait can be
//! given up and resumed, because a client may disconnect at any moment.

mod hashing;
mod rollback;
mod spilling;
mod suspend;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::payload_hash::{PayloadHash, Progress};
use super::shared::{Shared, UploadIdentity};
use super::spill::Spill;
use super::staging::Staged;
use crate::digest::Algorithm;
use crate::error::{Error, Result};
use crate::format::upload_log::UploadCheckpoint;
use crate::in_flight::InFlight;
use crate::segment::DedicatedWriter;
use crate::vocabulary::ClientId;

pub(super) use rollback::BodyMark;

/// Pieces smaller than this, in bytes, are copied together, so that they do not pin the larger blocks that they are
/// part of.
const TINY_BYTES: usize = 4 << 10;

/// The received bytes of one upload.
#[derive(Debug)]
pub(super) struct Body {
    shared: Arc<Shared>,
    identity: UploadIdentity,
    /// The client whose request has the turn.
    client: ClientId,
    algorithm: Algorithm,
    length_hint: Option<u64>,
    /// Received and not yet submitted: whole pieces, then tiny ones copied together.
    pending: Vec<Bytes>,
    tiny: BytesMut,
    pending_bytes: u64,
    submitted: u64,
    hash: HashState,
    storage: BodyStorage,
    /// A dedicated segment that is being created; a request that gives up leaves it to the next.
    opening: Option<InFlight<Result<DedicatedWriter>>>,
    staged: Staged,
    /// Where a closing request without an answer began. The log names no byte after it, because the request that
    /// follows a restart may be the same one, sent again.
    unanswered: Option<BodyMark>,
    failed: Option<Error>,
}

/// The state of the running hash.
#[derive(Debug)]
enum HashState {
    Ready(PayloadHash),
    Hashing(InFlight<Option<PayloadHash>>),
    /// Resumed without a mid-state: everything must be hashed again first.
    Rehash(UploadCheckpoint),
    Lost,
}

/// Where submitted bytes are stored.
#[derive(Debug)]
pub(super) enum BodyStorage {
    Memory(Vec<Bytes>),
    Spilled(Box<Spill>),
}

impl Body {
    pub(super) fn new(
        shared: Arc<Shared>,
        identity: UploadIdentity,
        algorithm: Algorithm,
        length_hint: Option<u64>,
    ) -> Self {
        let staged = shared.staging.share();
        Self {
            shared,
            identity,
            client: ClientId::ENGINE,
            algorithm,
            length_hint,
            pending: Vec::new(),
            tiny: BytesMut::new(),
            pending_bytes: 0,
            submitted: 0,
            hash: HashState::Ready(PayloadHash::new(algorithm)),
            storage: BodyStorage::Memory(Vec::new()),
            opening: None,
            staged,
            unanswered: None,
            failed: None,
        }
    }

    /// Continues from a checkpoint, with the bytes that `spill` has.
    pub(super) fn resume(
        shared: Arc<Shared>,
        identity: UploadIdentity,
        checkpoint: UploadCheckpoint,
        spill: Spill,
    ) -> Self {
        let mut body = Self::new(shared, identity, checkpoint.algorithm, None);
        body.submitted = checkpoint.mark.length;
        body.storage = BodyStorage::Spilled(Box::new(spill.at(checkpoint.mark.length)));
        body.hash = match PayloadHash::resume(&checkpoint) {
            Some(payload_hash) => HashState::Ready(payload_hash),
            None => HashState::Rehash(checkpoint),
        };
        body
    }

    /// Returns the number of bytes received.
    pub(super) fn offset(&self) -> u64 {
        self.submitted + self.pending_bytes
    }

    /// Returns the running algorithm.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the client whose request has the turn.
    pub(super) fn client(&self) -> ClientId {
        self.client
    }

    /// Counts what follows as work of `client`, which takes turns with others.
    pub(super) fn set_client(&mut self, client: ClientId) {
        self.client = client;
        self.staged.set_client(client);
        if let BodyStorage::Spilled(spill) = &mut self.storage {
            spill.set_client(client);
        }
    }

    /// Switches to this algorithm, if no byte was received yet.
    pub(super) fn prefer(&mut self, algorithm: Algorithm) {
        if self.offset() == 0 && algorithm != self.algorithm {
            self.algorithm = algorithm;
            self.hash = HashState::Ready(PayloadHash::new(algorithm));
        }
    }

    /// Counts on `bytes` more, which a request announces.
    pub(super) fn announce(&mut self, bytes: u64) {
        let length = self.offset().saturating_add(bytes);
        self.length_hint = self.length_hint.max(Some(length));
        if let BodyStorage::Spilled(spill) = &mut self.storage {
            spill.announce(length);
        }
    }

    /// Returns whether the upload cannot continue.
    pub(super) fn is_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Fails if the upload cannot continue.
    pub(super) fn check(&self) -> Result<()> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Remembers an error after which bytes are missing. None are missing after an operation that was not attempted, or
    /// after a write that found the disk full: the next step repeats it.
    pub(super) fn fail<T>(&mut self, result: Result<T>) -> Result<T> {
        let sync_failed =
            matches!(&self.storage, BodyStorage::Spilled(spill) if spill.is_sync_failed());
        match &result {
            Err(error) if error.is_not_attempted() || (error.is_no_space() && !sync_failed) => {}
            Err(error) => self.end(error),
            Ok(_) => {}
        }
        result
    }

    /// Ends the upload because of this error.
    fn end(&mut self, error: &Error) {
        self.failed.get_or_insert_with(|| error.clone());
    }

    /// Ends an upload that has bytes on disk if its request failed for lack of space, so that they do not stay there.
    pub(super) fn end_without_space(&mut self, error: &Error) {
        if error.is_no_space() && self.bytes_on_disk() > 0 {
            self.end(error);
        }
    }

    /// Returns the bytes on disk, reserved ones included.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        match &self.storage {
            BodyStorage::Memory(_) => 0,
            BodyStorage::Spilled(spill) => spill.bytes_on_disk(),
        }
    }

    /// Takes in bytes, and leaves in `piece` those that it did not take; waits while the pipeline is full. After an
    /// error that did not end the upload, the next call continues.
    pub(super) async fn write(&mut self, piece: &mut Bytes) -> Result<()> {
        self.check()?;
        let outcome = self.try_write(piece).await;
        self.fail(outcome)
    }

    async fn try_write(&mut self, piece: &mut Bytes) -> Result<()> {
        self.hash_again_if_due().await?;
        let window = self.shared.options.upload_window_bytes as u64;
        loop {
            let is_over_budget = self.held_bytes() > self.staged.bytes();
            let is_full = self.pending_bytes >= window;
            if is_over_budget {
                self.drain().await?;
            } else if is_full {
                self.submit().await?;
            }
            if (is_over_budget || is_full) && self.shared.segments.files().writers_wait() {
                self.release_descriptor().await?;
            }
            if piece.is_empty() {
                return Ok(());
            }
            self.spill_if_due(piece.len() as u64).await?;
            let room = usize::try_from(window - self.pending_bytes).unwrap_or(usize::MAX);
            let part_bytes = room.min(piece.len());
            self.stage(part_bytes as u64).await?;
            // Staging may have submitted what was pending; then there is more room than this, never less.
            self.push(piece.split_to(part_bytes));
        }
    }

    fn push(&mut self, part: Bytes) {
        self.pending_bytes += part.len() as u64;
        if part.len() < TINY_BYTES {
            self.tiny.extend_from_slice(&part);
        } else {
            self.seal_tiny();
            self.pending.push(part);
        }
    }

    fn seal_tiny(&mut self) {
        if !self.tiny.is_empty() {
            self.pending.push(self.tiny.split().freeze());
        }
    }

    /// Counts `bytes` more in memory. If the budget is used up, the upload spills to disk. If there is still no budget,
    /// the bytes exceed it until [`Body::try_write`] has drained them.
    async fn stage(&mut self, bytes: u64) -> Result<()> {
        let length = self.offset() + bytes;
        if !self.staged.try_add(bytes, length) {
            self.spill().await?;
            self.drain().await?;
            self.staged.try_add(bytes, length);
        }
        Ok(())
    }

    /// Returns the bytes in memory.
    fn held_bytes(&self) -> u64 {
        let kept = match &self.storage {
            BodyStorage::Memory(_) => self.submitted,
            BodyStorage::Spilled(spill) => spill.bytes_in_flight(),
        };
        kept + self.pending_bytes
    }

    /// Hashes everything received and writes it to the dedicated segment, so that none of it is in memory.
    async fn drain(&mut self) -> Result<()> {
        if self.pending_bytes > 0 {
            self.submit().await?;
        }
        self.settle_hash().await?;
        if let BodyStorage::Spilled(spill) = &mut self.storage {
            spill.settle_writes(0).await?;
        }
        self.release();
        Ok(())
    }

    /// Returns the dedicated segment and the progress, if the hash has everything that was submitted.
    fn spilled(&mut self) -> Option<(&mut Spill, Progress<'_>)> {
        let (BodyStorage::Spilled(spill), HashState::Ready(payload_hash)) =
            (&mut self.storage, &self.hash)
        else {
            return None;
        };
        let close = self.unanswered.as_ref().map(|mark| &mark.payload_hash);
        Some((
            spill,
            Progress {
                payload_hash,
                close,
            },
        ))
    }

    /// Returns memory that is no longer used to the budget.
    fn release(&mut self) {
        self.staged.release_to(self.held_bytes());
    }

    /// Passes the pending window to hash and disk.
    async fn submit(&mut self) -> Result<()> {
        let options = &self.shared.options;
        let (unsynced_max, record_every) =
            (options.unsynced_bytes_max, options.upload_checkpoint_bytes);
        self.settle_hash().await?;
        if let Some((spill, progress)) = self.spilled() {
            let submitted = progress.length();
            spill.reopen().await?;
            spill.pace(progress, unsynced_max / 2, record_every).await?;
            spill.make_room(submitted, unsynced_max).await?;
        }
        // Nothing waits from here on, so that a window is submitted as a whole or not at all.
        self.release();
        self.seal_tiny();
        let pieces = std::mem::take(&mut self.pending);
        let bytes = std::mem::take(&mut self.pending_bytes);
        self.start_hash(&pieces, bytes);
        match &mut self.storage {
            BodyStorage::Memory(stored) => stored.extend(pieces),
            BodyStorage::Spilled(spill) => spill.start_write(self.submitted, pieces),
        }
        self.submitted += bytes;
        Ok(())
    }

    /// Submits and hashes everything received.
    pub(super) async fn flush(&mut self) -> Result<&PayloadHash> {
        self.check()?;
        let outcome = self.try_flush().await;
        self.fail(outcome)?;
        match &self.hash {
            HashState::Ready(payload_hash) => Ok(payload_hash),
            HashState::Hashing(_) | HashState::Rehash(_) | HashState::Lost => {
                unreachable!("a flushed body is hashed")
            }
        }
    }

    async fn try_flush(&mut self) -> Result<()> {
        self.hash_again_if_due().await?;
        if self.pending_bytes > 0 {
            self.submit().await?;
        }
        self.settle_hash().await
    }

    /// Returns the flushed bytes, to be finished.
    ///
    /// # Panics
    /// If the body is not flushed.
    pub(super) fn flushed(&mut self) -> (&PayloadHash, &mut BodyStorage) {
        match &self.hash {
            HashState::Ready(payload_hash) if self.pending_bytes == 0 => {
                (payload_hash, &mut self.storage)
            }
            HashState::Ready(_)
            | HashState::Hashing(_)
            | HashState::Rehash(_)
            | HashState::Lost => {
                unreachable!("only a flushed body is finished")
            }
        }
    }

    /// Waits for operations in flight, whatever their outcome, so that the files can be removed.
    pub(super) async fn settle(&mut self) {
        if let BodyStorage::Spilled(spill) = &mut self.storage {
            let settled = spill.end_operations().await;
            self.fail(settled).unwrap_or_default();
        }
    }

    /// Drops everything: the upload ended without a result.
    pub(super) fn abandon(&mut self) {
        self.failed.get_or_insert(Error::UnknownUpload);
        if let BodyStorage::Spilled(spill) = &mut self.storage {
            spill.abandon();
        }
        self.storage = BodyStorage::Memory(Vec::new());
        self.opening = None;
        (self.pending, self.pending_bytes, self.submitted) = (Vec::new(), 0, 0);
        self.tiny = BytesMut::new();
        self.unanswered = None;
        self.staged.release_to(0);
    }
}
