//! The pipeline of one upload: received pieces become windows, and each full window is hashed and written
//! while the next one is received.
//!
//! Owns: windows, where the bytes are kept (memory, then a dedicated segment), and going back. Refuses:
//! sessions and names (`session`, `sessions`).
//!
//! Invariants: `offset = submitted + pending`; what is submitted is hashed in order, one window at a time; every
//! wait can be given up and taken up again, since a client may go at any moment.

use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use super::UploadId;
use super::digestion::{Digestion, DigestionMark};
use super::log::LogFile;
use super::session_table::SessionTable;
use super::space::Space;
use super::spill::Spill;
use super::staging::{Staged, StagingBudget};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::format::upload_log::{UploadCheckpoint, UploadHeader};
use crate::in_flight::InFlight;
use crate::io::{Directory, Env};
use crate::options::Options;
use crate::segment::{DedicatedWriter, Segments};
use crate::sync::Notify;

/// Pieces below this are copied together, so that they do not pin the larger blocks they are cut from.
const TINY_BYTES: usize = 4 << 10;
/// Windows up to this are hashed on the spot: cheaper than handing them to another thread.
const HASH_INLINE_BYTES: u64 = 32 << 10;

/// What all uploads of a store share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) dir: Directory,
    pub(super) segments: Arc<Segments>,
    pub(super) options: Options,
    pub(super) staging: Arc<StagingBudget>,
    pub(super) space: Space,
    pub(super) sessions: Weak<SessionTable>,
    /// An upload holds memory or a descriptor that it did not hold before.
    pub(super) held: Arc<Notify>,
}

/// Whose bytes these are.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) id: UploadId,
    pub(super) repository: String,
    pub(super) actor: String,
    pub(super) created_unix_ms: u64,
}

/// The bytes of one upload, on their way.
#[derive(Debug)]
pub(super) struct Body {
    shared: Arc<Shared>,
    subject: Subject,
    algorithm: Algorithm,
    length_hint: Option<u64>,
    /// Received, not yet submitted: whole pieces, then tiny ones copied together.
    pending: Vec<Bytes>,
    tiny: BytesMut,
    pending_bytes: u64,
    submitted: u64,
    work: Work,
    kept: Kept,
    /// The dedicated segment on its way: a request that gives up leaves it to the next.
    opening: Option<InFlight<Result<DedicatedWriter>>>,
    staged: Staged,
    /// Where a closing request began that has no answer yet.
    unanswered: Option<BodyMark>,
    failed: Option<Error>,
}

/// Where the hash is.
#[derive(Debug)]
enum Work {
    Ready(Digestion),
    Hashing(InFlight<Option<Digestion>>),
    /// Resumed without a mid-state: everything has to be hashed again first.
    Again(UploadCheckpoint),
    Lost,
}

/// Where submitted bytes are.
#[derive(Debug)]
pub(super) enum Kept {
    Memory(Vec<Bytes>),
    Spilled(Box<Spill>),
}

/// A point of a body to go back to.
#[derive(Debug, Clone)]
pub(super) struct BodyMark {
    digestion: DigestionMark,
    pieces: usize,
}

impl BodyMark {
    /// Bytes before it.
    pub(super) fn offset(&self) -> u64 {
        self.digestion.mark.length
    }
}

impl Body {
    pub(super) fn new(
        shared: Arc<Shared>,
        subject: Subject,
        algorithm: Algorithm,
        length_hint: Option<u64>,
    ) -> Self {
        let staged = shared.staging.share();
        Self {
            shared,
            subject,
            algorithm,
            length_hint,
            pending: Vec::new(),
            tiny: BytesMut::new(),
            pending_bytes: 0,
            submitted: 0,
            work: Work::Ready(Digestion::new(algorithm)),
            kept: Kept::Memory(Vec::new()),
            opening: None,
            staged,
            unanswered: None,
            failed: None,
        }
    }

    /// Goes on from a checkpoint, with the bytes that `spill` has.
    pub(super) fn resume(
        shared: Arc<Shared>,
        subject: Subject,
        checkpoint: UploadCheckpoint,
        spill: Spill,
    ) -> Self {
        let mut body = Self::new(shared, subject, checkpoint.algorithm, None);
        body.submitted = checkpoint.mark.length;
        body.kept = Kept::Spilled(Box::new(spill.at(checkpoint.mark.length)));
        body.work = match Digestion::resume(&checkpoint) {
            Some(digestion) => Work::Ready(digestion),
            None => Work::Again(checkpoint),
        };
        body
    }

    /// Bytes received.
    pub(super) fn offset(&self) -> u64 {
        self.submitted + self.pending_bytes
    }

    /// The algorithm that runs.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Runs this algorithm, if there is nothing yet that another one was run over.
    pub(super) fn prefer(&mut self, algorithm: Algorithm) {
        if self.offset() == 0 && algorithm != self.algorithm {
            self.algorithm = algorithm;
            self.work = Work::Ready(Digestion::new(algorithm));
        }
    }

    /// Whether the upload cannot go on.
    pub(super) fn is_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn check(&self) -> Result<()> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Remembers an error after which the bytes are not all there. They are after an operation that was not attempted,
    /// and after a write that found the disk full: it is begun again by the next step.
    pub(super) fn fail<T>(&mut self, result: Result<T>) -> Result<T> {
        let sync_failed = matches!(&self.kept, Kept::Spilled(spill) if spill.is_sync_failed());
        match &result {
            Err(error) if error.is_not_attempted() || (error.is_no_space() && !sync_failed) => {}
            Err(error) => self.end(error),
            Ok(_) => {}
        }
        result
    }

    /// The upload cannot go on because of this error.
    fn end(&mut self, error: &Error) {
        self.failed.get_or_insert_with(|| error.clone());
    }

    /// A request failed. Where that is for want of space, an upload that has bytes on disk ends, so that they do not stay
    /// there.
    pub(super) fn end_without_space(&mut self, error: &Error) {
        if error.is_no_space() && self.bytes_on_disk() > 0 {
            self.end(error);
        }
    }

    /// Bytes on disk, reserved ones included.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        match &self.kept {
            Kept::Memory(_) => 0,
            Kept::Spilled(spill) => spill.bytes_on_disk(),
        }
    }

    /// Takes in bytes, and leaves in `piece` what it did not take; waits while the pipeline is full. Called again after
    /// an error that did not end the upload, it takes up what was not done.
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

    /// Gives the descriptor to an upload that waits for one, so that each gets on by a window in its turn.
    async fn release_descriptor(&mut self) -> Result<()> {
        self.settle_hash().await?;
        if let (Kept::Spilled(spill), Work::Ready(digestion)) = (&mut self.kept, &self.work) {
            spill.release_descriptor(digestion).await?;
        }
        self.release();
        Ok(())
    }

    /// As between two windows, for an upload whose client is slow.
    pub(super) async fn release_descriptor_idle(&mut self) -> Result<()> {
        if self.is_failed() {
            return Ok(());
        }
        let outcome = self.release_descriptor().await;
        self.fail(outcome)
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

    /// Moves to a dedicated segment when the blob is, or is announced to be, large.
    async fn spill_if_due(&mut self, more: u64) -> Result<()> {
        let threshold = self.shared.options.spill_threshold_bytes;
        let large = self.offset() + more > threshold
            || self.length_hint.is_some_and(|hint| hint > threshold);
        if large { self.spill().await } else { Ok(()) }
    }

    /// Moves what memory holds to a dedicated segment.
    pub(super) async fn spill(&mut self) -> Result<()> {
        if matches!(self.kept, Kept::Spilled(_)) {
            return Ok(());
        }
        if self.opening.is_some() {
            return self.spill_with(None).await;
        }
        if let Some(length) = self.length_hint
            && let Err(error) = self.shared.check_announced(length).await
        {
            self.end(&error);
            return Err(error);
        }
        // Waited for here and not in flight: a request that gives up does not keep the permit that comes then.
        let permit = self.shared.segments.files().writer_permit().await?;
        self.spill_with(Some(permit)).await
    }

    async fn spill_with(&mut self, permit: Option<OwnedSemaphorePermit>) -> Result<()> {
        let writer = self.create_segment(permit).await?;
        let header = UploadHeader {
            store: self.shared.segments.files().store(),
            upload: *self.subject.id.as_bytes(),
            segment: writer.id(),
            created_unix_ms: self.subject.created_unix_ms,
            repository: self.subject.repository.clone(),
            actor: self.subject.actor.clone(),
        };
        let open = self.shared.segments.files().open_files();
        let log = LogFile::new(
            self.shared.env.clone(),
            &self.shared.dir,
            open,
            self.subject.id,
        );
        let mut spill = Spill::new(Arc::clone(&self.shared), writer, header, log);
        if let Kept::Memory(pieces) = &mut self.kept
            && !pieces.is_empty()
        {
            spill.start_write(0, std::mem::take(pieces));
        }
        self.kept = Kept::Spilled(Box::new(spill));
        Ok(())
    }

    /// The segment that is on its way, or one made with `permit`.
    async fn create_segment(
        &mut self,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<DedicatedWriter> {
        if let Some(permit) = permit {
            let (segments, hint) = (Arc::clone(&self.shared.segments), self.length_hint);
            self.opening = Some(InFlight::start(async move {
                segments.create_dedicated(permit, hint).await
            }));
        }
        let opened = match &mut self.opening {
            Some(opening) => opening.done().await.take(),
            None => None,
        };
        self.opening = None;
        opened.unwrap_or(Err(Error::Closed))
    }

    /// Accounts for `bytes` more in memory. Where the budget is used up, the upload goes to disk. Where none is left even
    /// so, they are beyond the budget until [`Body::try_write`] has drained them.
    async fn stage(&mut self, bytes: u64) -> Result<()> {
        let length = self.offset() + bytes;
        if !self.staged.try_add(bytes, length) {
            self.spill().await?;
            self.drain().await?;
            self.staged.try_add(bytes, length);
        }
        Ok(())
    }

    /// Bytes in memory.
    fn held_bytes(&self) -> u64 {
        let kept = match &self.kept {
            Kept::Memory(_) => self.submitted,
            Kept::Spilled(spill) => spill.bytes_in_flight(),
        };
        kept + self.pending_bytes
    }

    /// Everything received is hashed and in the dedicated segment, and nothing of it in memory.
    async fn drain(&mut self) -> Result<()> {
        if self.pending_bytes > 0 {
            self.submit().await?;
        }
        self.settle_hash().await?;
        if let Kept::Spilled(spill) = &mut self.kept {
            spill.settle_writes(0).await?;
        }
        self.release();
        Ok(())
    }

    /// Gives back memory that is no longer held.
    fn release(&mut self) {
        self.staged.release_to(self.held_bytes());
    }

    /// Hands the pending window to hash and disk.
    async fn submit(&mut self) -> Result<()> {
        let options = &self.shared.options;
        let (unsynced_max, record_every) =
            (options.unsynced_bytes_max, options.upload_checkpoint_bytes);
        self.settle_hash().await?;
        if let (Kept::Spilled(spill), Work::Ready(digestion)) = (&mut self.kept, &self.work) {
            spill.reopen().await?;
            spill
                .pace(digestion, unsynced_max / 2, record_every)
                .await?;
            spill.make_room(self.submitted, unsynced_max).await?;
        }
        // From here on nothing waits: a window is submitted as a whole or not at all.
        self.release();
        self.seal_tiny();
        let pieces = std::mem::take(&mut self.pending);
        let bytes = std::mem::take(&mut self.pending_bytes);
        self.start_hash(&pieces, bytes);
        match &mut self.kept {
            Kept::Memory(kept) => kept.extend(pieces),
            Kept::Spilled(spill) => spill.start_write(self.submitted, pieces),
        }
        self.submitted += bytes;
        Ok(())
    }

    fn start_hash(&mut self, pieces: &[Bytes], bytes: u64) {
        let Work::Ready(mut digestion) = std::mem::replace(&mut self.work, Work::Lost) else {
            unreachable!("the hash of the window before was waited for");
        };
        if bytes <= HASH_INLINE_BYTES {
            digestion.take_in(pieces);
            self.work = Work::Ready(digestion);
            return;
        }
        let (env, pieces) = (self.shared.env.clone(), pieces.to_vec());
        self.work = Work::Hashing(InFlight::start(async move {
            let hashed = env.compute(move || {
                digestion.take_in(&pieces);
                digestion
            });
            hashed.await
        }));
    }

    /// Waits until everything submitted is hashed.
    async fn settle_hash(&mut self) -> Result<()> {
        if let Work::Hashing(hashing) = &mut self.work {
            self.work = match hashing.done().await.take().flatten() {
                Some(digestion) => Work::Ready(digestion),
                None => Work::Lost,
            };
        }
        // Lost: the computation never ran, which happens only when the program is being stopped.
        if matches!(self.work, Work::Lost) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Builds the hash anew after a restart, where no mid-state could be kept.
    async fn hash_again_if_due(&mut self) -> Result<()> {
        let Work::Again(checkpoint) = &self.work else {
            return Ok(());
        };
        let (length, mark) = (checkpoint.mark.length, checkpoint.clone());
        let hasher = self
            .hash_with(checkpoint.algorithm, length, table_of(&mark))
            .await?;
        self.work = Digestion::with_hasher(hasher, &mark).map_or(Work::Lost, Work::Ready);
        Ok(())
    }

    /// Hashes what is in the dedicated segment.
    async fn hash_with(
        &mut self,
        algorithm: Algorithm,
        length: u64,
        table: Vec<u32>,
    ) -> Result<Hasher> {
        let pool = self.shared.segments.pool().clone();
        match &mut self.kept {
            Kept::Spilled(spill) => spill.hash_again(&pool, algorithm, length, &table).await,
            Kept::Memory(pieces) => {
                let mut hasher = Hasher::new(algorithm);
                for piece in pieces.clone() {
                    let hashed = self.shared.env.compute(move || {
                        hasher.update(&piece);
                        hasher
                    });
                    hasher = hashed.await.ok_or(Error::Closed)?;
                }
                Ok(hasher)
            }
        }
    }

    /// Everything received is submitted and hashed.
    pub(super) async fn flush(&mut self) -> Result<&Digestion> {
        self.check()?;
        let outcome = self.try_flush().await;
        self.fail(outcome)?;
        match &self.work {
            Work::Ready(digestion) => Ok(digestion),
            Work::Hashing(_) | Work::Again(_) | Work::Lost => {
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

    /// The digest of everything received, under any algorithm. Under another one than runs, the bytes are read
    /// again (D9: the one exception to a commit whose cost does not depend on the size).
    pub(super) async fn digest(&mut self, algorithm: Algorithm) -> Result<Digest> {
        let running = self.algorithm;
        let digestion = self.flush().await?;
        if algorithm == running {
            return Ok(digestion.digest());
        }
        let (length, table) = (digestion.length(), digestion.table());
        Ok(self.hash_with(algorithm, length, table).await?.finish())
    }

    /// The flushed bytes, to be finished.
    pub(super) fn flushed(&mut self) -> (&Digestion, &mut Kept) {
        match &self.work {
            Work::Ready(digestion) if self.pending_bytes == 0 => (digestion, &mut self.kept),
            Work::Ready(_) | Work::Hashing(_) | Work::Again(_) | Work::Lost => {
                unreachable!("only a flushed body is finished")
            }
        }
    }

    /// Remembers where we are.
    pub(super) async fn mark(&mut self) -> Result<BodyMark> {
        // Submitted, so that a mark holds no bytes of its own.
        let digestion = self.flush().await?.mark();
        let pieces = match &self.kept {
            Kept::Memory(pieces) => pieces.len(),
            Kept::Spilled(_) => 0,
        };
        Ok(BodyMark { digestion, pieces })
    }

    /// Where a closing request began that has no answer.
    pub(super) fn unanswered(&self) -> Option<BodyMark> {
        self.unanswered.clone()
    }

    /// Remembers where a closing request begins.
    pub(super) async fn mark_close(&mut self) -> Result<BodyMark> {
        let mark = self.mark().await?;
        self.unanswered = Some(mark.clone());
        Ok(mark)
    }

    /// A request says that its bytes follow all that is there.
    pub(super) fn keep_unanswered(&mut self) {
        self.unanswered = None;
    }

    /// Goes back to a mark of this body: what came after it was never received.
    pub(super) async fn back_to(&mut self, mark: &BodyMark) -> Result<()> {
        self.check()?;
        let outcome = self.try_back_to(mark).await;
        self.fail(outcome)
    }

    async fn try_back_to(&mut self, mark: &BodyMark) -> Result<()> {
        self.settle_hash().await?;
        if let Kept::Spilled(spill) = &mut self.kept {
            // A write still on its way must not land on top of what comes next.
            spill.settle_for(mark.offset()).await?;
        }
        // From here on nothing waits: an upload goes back as a whole or not at all.
        let Work::Ready(digestion) = &mut self.work else {
            unreachable!("the hash was waited for")
        };
        if mark.digestion.mark.length < digestion.length() {
            digestion.back_to(&mark.digestion);
        }
        self.submitted = mark.digestion.mark.length;
        self.tiny.clear();
        (self.pending, self.pending_bytes) = (Vec::new(), 0);
        self.unanswered = None;
        match &mut self.kept {
            Kept::Memory(pieces) => pieces.truncate(mark.pieces),
            Kept::Spilled(spill) => spill.back_to(self.submitted),
        }
        self.release();
        // Given up here, the next window makes up for it.
        if let (Kept::Spilled(spill), Work::Ready(digestion)) = (&mut self.kept, &self.work)
            && spill.is_log_ahead_of(self.submitted)
        {
            spill.record(digestion).await?;
        }
        Ok(())
    }

    /// Makes everything received survive a restart.
    pub(super) async fn record(&mut self) -> Result<()> {
        // A resumed upload that got no bytes is in its log already.
        if self.offset() == 0 || matches!(self.work, Work::Again(_)) {
            return Ok(());
        }
        self.flush().await?;
        // Without room for a segment the bytes stay in memory.
        self.spill().await?;
        let recorded = match (&mut self.kept, &self.work) {
            (Kept::Spilled(spill), Work::Ready(digestion)) => spill.record(digestion).await,
            _ => Ok(()),
        };
        self.fail(recorded)
    }

    /// Whether it has memory or a descriptor that it can give back while nothing comes.
    pub(super) fn holds(&self) -> bool {
        let behind = matches!(&self.kept, Kept::Spilled(spill) if spill.is_behind());
        // Bytes may be held beyond the budget ([`Body::stage`]).
        self.is_open() || behind || self.held_bytes() > 0 || !self.staged.is_empty()
    }

    /// Whether it has a descriptor.
    pub(super) fn is_open(&self) -> bool {
        match &self.kept {
            Kept::Memory(_) => self.opening.is_some(),
            Kept::Spilled(spill) => spill.is_open(),
        }
    }

    /// Gives back memory and descriptor: everything received is on disk and survives a restart. Never waits for the
    /// descriptor of another upload, which may itself have to be put away first: false where it would have to.
    pub(super) async fn put_away(&mut self) -> Result<bool> {
        if self.is_failed() {
            return Ok(true);
        }
        if !self.open_at_once().await? {
            return Ok(false);
        }
        self.record().await?;
        if let Kept::Spilled(spill) = &mut self.kept {
            let closed = spill.close().await;
            self.fail(closed)?;
        }
        self.release();
        Ok(true)
    }

    /// Opens a segment to write what is not recorded, if there is any; false if a descriptor had to be waited for.
    async fn open_at_once(&mut self) -> Result<bool> {
        if let Kept::Spilled(spill) = &mut self.kept {
            let recorded = self.pending_bytes == 0 && spill.is_recorded(self.submitted);
            return if recorded {
                Ok(true)
            } else {
                spill.try_reopen().await
            };
        }
        if self.offset() == 0 {
            self.opening = None;
        } else if self.opening.is_some() {
            // Of a request that gave up. It has its permit.
            self.spill_with(None).await?;
        } else {
            let Some(permit) = self.shared.segments.files().try_writer_permit() else {
                return Ok(false);
            };
            self.spill_with(Some(permit)).await?;
        }
        Ok(true)
    }

    /// Lets what is in flight end, whatever comes of it, so that its files can be removed.
    pub(super) async fn settle(&mut self) {
        if let Kept::Spilled(spill) = &mut self.kept {
            let settled = spill.end_operations().await;
            self.fail(settled).unwrap_or_default();
        }
    }

    /// The upload is over without a result: nothing of it stays.
    pub(super) fn abandon(&mut self) {
        self.failed.get_or_insert(Error::UnknownUpload);
        if let Kept::Spilled(spill) = &mut self.kept {
            spill.abandon();
        }
        self.kept = Kept::Memory(Vec::new());
        self.opening = None;
        (self.pending, self.pending_bytes, self.submitted) = (Vec::new(), 0, 0);
        self.tiny = BytesMut::new();
        self.unanswered = None;
        self.staged.release_to(0);
    }
}

/// The checksum table of a checkpoint, the unfinished chunk included.
fn table_of(checkpoint: &UploadCheckpoint) -> Vec<u32> {
    let mut table = checkpoint.checksums.clone();
    if checkpoint
        .mark
        .length
        .div_ceil(crate::limits::CHUNK_BYTES as u64)
        > table.len() as u64
    {
        table.push(checkpoint.mark.partial);
    }
    table
}
