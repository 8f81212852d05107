//! Appends frames to the journal of an open store.
//!
//! Owns: the active file, the file prepared to follow it, and the order write, sync, next frame. Refuses: batching,
//! LSNs and publishing (`commit`); retrying anything.
//!
//! Invariants: one `append` at a time (`&mut self`), and it returns only after its frame is durable. A file is prepared
//! (zeros, durable, directory synced) before it is needed. Its header is durable before its first frame. Zeros are
//! written instead of only allocating: turning unwritten extents into written ones would cost every sync a commit of
//! the file system.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::marks::{Marks, seal};
use super::{Position, Predecessor, file_path, reserve};
use crate::error::{Error, Result};
use crate::extent::Lsn;
use crate::format::codec::checksum;
use crate::format::journal::{FrameHeader, JournalHeader, frame_bytes};
use crate::format::mark::{FRAMES_START, Mark};
use crate::io::{Class, Directory, Env, FileRef, OpenMode, exact};
use crate::poison::Poison;
use crate::sync::oneshot;

/// Free space, in journal files, below which a disk counts as nearly full.
const ROOMY_FILES: u64 = 4;
/// Bytes of zeros written at a time when a file is prepared.
const ZERO_RUN_BYTES: usize = 1 << 20;

/// Size of an epoch's first file where the disk is too full for a whole one.
const SMALL_FILE_BYTES: u64 = 1 << 20;

/// What a journal needs of its store.
#[derive(Debug, Clone)]
pub(crate) struct JournalSpec {
    /// The store's directory.
    pub store: PathBuf,
    /// `journal/` in it.
    pub directory: Directory,
    /// Stops all writes after a failed sync of `directory`, which leaves unknown which names are durable.
    pub poison: Arc<Poison>,
    /// Id of the store.
    pub store_id: [u8; 16],
    /// Epoch of this open.
    pub epoch: u64,
    /// Size of a file in bytes. A single larger frame gets a file that fits it.
    pub file_bytes: u64,
}

/// Why a frame was not appended.
#[derive(Debug, Clone)]
pub(crate) enum AppendError {
    /// Nothing of the frame was written: no file could be prepared for it, or the write was not attempted. The journal
    /// is as it was.
    NotStarted(Error),
    /// A write or sync failed half-way. What is on disk is unknown until the next open.
    Failed(Error),
}

impl AppendError {
    /// Classifies an error: one that was not attempted left the journal as it was.
    fn of(error: Error) -> Self {
        if error.is_not_attempted() {
            Self::NotStarted(error)
        } else {
            Self::Failed(error)
        }
    }
}

/// The journal of an open store.
#[derive(Debug)]
pub(crate) struct JournalWriter {
    env: Env,
    spec: Arc<JournalSpec>,
    active: Active,
    /// The file being prepared, or the reason why there is none.
    next: Option<oneshot::Receiver<Result<Prepared>>>,
    /// The file before the active one, until it is sealed.
    unsealed: Option<Active>,
}

#[derive(Debug)]
struct Active {
    file: FileRef,
    path: PathBuf,
    header: JournalHeader,
    capacity: u64,
    offset: u64,
    previous_crc: u32,
    /// First LSN of the last frame.
    last_lsn: Lsn,
    marks: Marks,
}

#[derive(Debug)]
struct Prepared {
    file: FileRef,
    path: PathBuf,
    number: u64,
    capacity: u64,
}

impl JournalWriter {
    /// Begins the file of a new epoch after `previous` (`None`: the first file of a store). The file must not exist.
    pub(crate) async fn begin(
        env: Env,
        spec: JournalSpec,
        previous: Option<Predecessor>,
        first_lsn: Lsn,
    ) -> Result<Self> {
        let spec = Arc::new(spec);
        let number = previous.map_or(1, |previous| previous.end.number + 1);
        let prepared = prepare_first(&env, &spec, number).await?;
        let previous_end = previous.map_or(0, |previous| previous.end.offset);
        let active = activate(&env, &spec, prepared, previous_end, first_lsn).await?;
        if let Some(previous) = previous {
            finish(&env, &spec, previous).await?;
        }
        Ok(Self {
            env,
            spec,
            active,
            next: None,
            unsealed: None,
        })
    }

    /// Returns the end of the last durable frame.
    pub(crate) fn position(&self) -> Position {
        Position {
            number: self.active.header.number,
            offset: self.active.offset,
        }
    }

    /// Makes one frame of `transactions` encoded transactions durable, and returns its end.
    pub(crate) async fn append(
        &mut self,
        first_lsn: Lsn,
        transactions: u32,
        payload: Vec<u8>,
    ) -> std::result::Result<Position, AppendError> {
        // Includes the close frame, which must fit whenever the store is closed. Without it the stop would not count as
        // clean.
        let needed = (frame_bytes(payload.len()) + frame_bytes(0)) as u64;
        if self.active.offset + needed > self.active.capacity {
            self.settle().await.map_err(AppendError::of)?;
            self.roll(needed, first_lsn).await?;
        }
        self.seal_finished().await.map_err(AppendError::of)?;
        let frame = self.frame(first_lsn, transactions, &payload);
        self.write(&frame, payload).await.map_err(AppendError::of)?;
        let active = &mut self.active;
        active.last_lsn = first_lsn;
        let mark = Mark {
            sealed: false,
            nonce: active.header.nonce,
            offset: active.offset,
            lsn: first_lsn,
        };
        active.marks.begin(&active.file, &mark);
        if self.next.is_none() && self.active.offset * 2 > self.active.capacity {
            self.prepare_next();
        }
        Ok(self.position())
    }

    /// Writes the close frame and ends the journal.
    pub(crate) async fn close(mut self) -> Result<()> {
        let mut frame = self.frame(self.active.header.first_lsn, 0, &[]);
        frame.close = true;
        assert!(
            self.active.offset + frame_bytes(0) as u64 <= self.active.capacity,
            "a journal file keeps room for its close frame"
        );
        self.seal_finished().await?;
        self.write(&frame, Vec::new()).await?;
        self.discard_next().await
    }

    fn frame(&self, first_lsn: Lsn, transactions: u32, payload: &[u8]) -> FrameHeader {
        FrameHeader {
            close: false,
            nonce: self.active.header.nonce,
            offset: self.active.offset,
            first_lsn,
            transactions,
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            payload_crc: checksum(payload),
            previous_crc: self.active.previous_crc,
        }
    }

    async fn write(&mut self, frame: &FrameHeader, payload: Vec<u8>) -> Result<()> {
        let header = frame.encode();
        let whole = frame_bytes(payload.len());
        let padding = whole - header.len() - payload.len();
        let slices = vec![
            Bytes::from(header),
            Bytes::from(payload),
            Bytes::from(vec![0; padding]),
        ];
        self.settle().await?;
        let active = &mut self.active;
        exact::write_all_and_sync(&*active.file, Class::Journal.call(), active.offset, slices)
            .await
            .map_err(|source| Error::io("write and sync a frame of", &active.path, source))?;
        active.offset += whole as u64;
        active.previous_crc = frame.crc();
        Ok(())
    }

    /// Switches to the prepared file. Seals the file before the active one first, because only one unsealed file is
    /// tracked.
    async fn roll(&mut self, needed: u64, first_lsn: Lsn) -> std::result::Result<(), AppendError> {
        self.seal_finished().await.map_err(AppendError::of)?;
        let prepared = self
            .take_next(needed)
            .await
            .map_err(AppendError::NotStarted)?;
        let end = self.active.offset;
        let activated = activate(&self.env, &self.spec, prepared, end, first_lsn).await;
        let next = activated.map_err(AppendError::of)?;
        self.unsealed = Some(std::mem::replace(&mut self.active, next));
        Ok(())
    }

    /// Seals the file before the active one. Called before any frame in the active one is acknowledged.
    async fn seal_finished(&mut self) -> Result<()> {
        let Some(finished) = &self.unsealed else {
            return Ok(());
        };
        let predecessor = Predecessor {
            end: Position {
                number: finished.header.number,
                offset: finished.offset,
            },
            nonce: finished.header.nonce,
            lsn: finished.last_lsn,
        };
        let (io, store) = (&*self.env.io, &self.spec.store);
        seal(io, store, &finished.file, predecessor).await?;
        self.unsealed = None;
        Ok(())
    }

    /// Waits until no mark is being written.
    async fn settle(&mut self) -> Result<()> {
        let active = &mut self.active;
        let settled = active.marks.settle().await;
        settled.map_err(|source| Error::io("write a mark to journal file", &active.path, source))
    }

    async fn take_next(&mut self, needed: u64) -> Result<Prepared> {
        let number = self.active.header.number + 1;
        let needed = needed + FRAMES_START;
        if let Some(waiting) = self.next.take() {
            match waiting.await {
                Ok(Ok(prepared)) if prepared.capacity >= needed => return Ok(prepared),
                Ok(Ok(small)) => remove(&self.env, &self.spec, &small.path).await?,
                Ok(Err(error)) if !(error.is_no_space() || error.is_not_attempted()) => {
                    return Err(error);
                }
                // Out of space, not attempted, or the task ended with its runtime: try once more here.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        // A failed attempt may not have been able to remove its file.
        remove_if_there(&self.env, &self.spec, number).await?;
        let capacity = needed.max(self.spec.file_bytes);
        prepare_or_release_reserve(&self.env, &self.spec, number, capacity).await
    }

    /// Starts preparing the next file while the active one fills.
    fn prepare_next(&mut self) {
        let (done, waiting) = oneshot::channel();
        let (env, spec, number) = (
            self.env.clone(),
            Arc::clone(&self.spec),
            self.active.header.number + 1,
        );
        self.next = Some(waiting);
        let task = async move {
            let prepared = prepare(&env, &spec, number, spec.file_bytes).await;
            // The writer may have been dropped. Recovery removes a prepared file that was never used.
            drop(done.send(prepared));
        };
        self.env.spawn.spawn("journal-prepare", Box::pin(task));
    }

    /// Ends the journal without a close frame, so that the next open recovers. No operation on the journal runs after
    /// the return.
    pub(crate) async fn abandon(mut self) -> Result<()> {
        let settled = self.settle().await;
        self.discard_next().await.and(settled)
    }

    /// Removes a prepared file that will not be used, so that a clean stop leaves none.
    async fn discard_next(&mut self) -> Result<()> {
        if let Some(waiting) = self.next.take()
            && let Ok(Ok(prepared)) = waiting.await
        {
            remove(&self.env, &self.spec, &prepared.path).await?;
        }
        Ok(())
    }
}

/// Prepares the file of a new epoch.
///
/// A store must open on a full disk, because pulls and deletes stay possible. There a small file is enough, and only a
/// part of the reserve is released for it, so that the reserve lasts for many starts.
async fn prepare_first(env: &Env, spec: &JournalSpec, number: u64) -> Result<Prepared> {
    let small = spec.file_bytes.min(SMALL_FILE_BYTES);
    match prepare(env, spec, number, spec.file_bytes).await {
        Err(error) if error.is_no_space() => {}
        prepared => return prepared,
    }
    match prepare(env, spec, number, small).await {
        Err(error) if error.is_no_space() => {}
        prepared => return prepared,
    }
    tracing::warn!("the disk is full: a part of the reserve is released so that the store opens");
    reserve::shrink(&*env.io, &spec.store, 2 * small).await?;
    prepare_or_release_reserve(env, spec, number, small).await
}

/// Prepares a file, and releases the reserve where the disk is full.
async fn prepare_or_release_reserve(
    env: &Env,
    spec: &JournalSpec,
    number: u64,
    capacity: u64,
) -> Result<Prepared> {
    match prepare(env, spec, number, capacity).await {
        Err(error) if error.is_no_space() => {
            tracing::warn!(
                "the disk is full: the reserve is released so that deletes stay possible"
            );
            reserve::release(&*env.io, &spec.store).await?;
            prepare(env, spec, number, capacity).await
        }
        other => other,
    }
}

/// Creates file `number`, filled with zeros and durable under its name. Leaves no file on failure.
async fn prepare(env: &Env, spec: &JournalSpec, number: u64, capacity: u64) -> Result<Prepared> {
    let path = file_path(&spec.store, number);
    let failed = |source| Error::io("prepare journal file", &path, source);
    let file = env
        .io
        .open(Class::Journal.call(), &path, OpenMode::CreateNew)
        .await
        .map_err(failed)?;
    match fill(spec, &file, &path, capacity).await {
        Ok(()) => Ok(Prepared {
            file,
            path,
            number,
            capacity,
        }),
        Err(error) => {
            if let Err(left) = remove(env, spec, &path).await {
                tracing::warn!(%left, "an unfinished journal file could not be removed; the next start removes it");
            }
            Err(error)
        }
    }
}

async fn fill(spec: &JournalSpec, file: &FileRef, path: &Path, capacity: u64) -> Result<()> {
    let failed = |source| Error::io("prepare journal file", path, source);
    let zeros = Bytes::from(vec![0; ZERO_RUN_BYTES]);
    let mut at = 0;
    while at < capacity {
        let run = usize::try_from(capacity - at)
            .unwrap_or(usize::MAX)
            .min(ZERO_RUN_BYTES);
        exact::write_all(&**file, Class::Journal.call(), at, vec![zeros.slice(..run)])
            .await
            .map_err(failed)?;
        at += run as u64;
    }
    file.sync_data(Class::Journal.call())
        .await
        .map_err(failed)?;
    sync_directory(spec).await
}

/// Seals the file that the previous epoch ended in, and frees the space that it never used.
async fn finish(env: &Env, spec: &JournalSpec, previous: Predecessor) -> Result<()> {
    let path = file_path(&spec.store, previous.end.number);
    let file = env
        .io
        .open(Class::Journal.call(), &path, OpenMode::Write)
        .await
        .map_err(|source| Error::io("open journal file", &path, source))?;
    seal(&*env.io, &spec.store, &file, previous).await?;
    trim(env, spec, &file, previous.end).await;
    Ok(())
}

/// Cuts a finished file at its end, which its successor's header names. Otherwise every start would cost the size of a
/// whole file.
///
/// Best effort: what stays costs only space. Nothing is cut on a disk that is nearly full, because pushes would use the
/// space and the next start needs it.
async fn trim(env: &Env, spec: &JournalSpec, file: &FileRef, end: Position) {
    let store = &spec.store;
    let space = env.io.space(Class::Journal.call(), store).await;
    if !space.is_ok_and(|space| space.available_bytes > ROOMY_FILES * spec.file_bytes) {
        return;
    }
    if let Err(error) = file.set_len(Class::Journal.call(), end.offset).await {
        let path = file_path(store, end.number);
        tracing::warn!(path = %path.display(), %error, "a finished journal file keeps its unused space");
    }
}

/// Writes the header of a prepared file, which makes it the end of the journal.
async fn activate(
    env: &Env,
    spec: &JournalSpec,
    prepared: Prepared,
    previous_end: u64,
    first_lsn: Lsn,
) -> Result<Active> {
    let mut nonce = [0; 8];
    env.rng.fill(&mut nonce);
    let header = JournalHeader {
        store_id: spec.store_id,
        number: prepared.number,
        epoch: spec.epoch,
        nonce: u64::from_le_bytes(nonce),
        first_lsn,
        previous_end,
        created_unix_ms: env.clock.wall_unix_ms(),
        file_bytes: prepared.capacity,
    };
    let path = prepared.path;
    let failed = |source| Error::io("write the header of journal file", &path, source);
    let header_bytes = vec![Bytes::from(header.encode())];
    exact::write_all_and_sync(&*prepared.file, Class::Journal.call(), 0, header_bytes)
        .await
        .map_err(failed)?;
    Ok(Active {
        file: prepared.file,
        path,
        header,
        capacity: prepared.capacity,
        offset: FRAMES_START,
        previous_crc: 0,
        last_lsn: first_lsn,
        marks: Marks::default(),
    })
}

async fn remove(env: &Env, spec: &JournalSpec, path: &Path) -> Result<()> {
    env.io
        .unlink(Class::Journal.call(), path)
        .await
        .map_err(|source| Error::io("remove", path, source))?;
    sync_directory(spec).await
}

/// Removes what an attempt to prepare file `number` left.
async fn remove_if_there(env: &Env, spec: &JournalSpec, number: u64) -> Result<()> {
    match remove(env, spec, &file_path(&spec.store, number)).await {
        Err(error) if error.is_not_found() => Ok(()),
        removed => removed,
    }
}

async fn sync_directory(spec: &JournalSpec) -> Result<()> {
    let synced = spec.directory.sync(Class::Directory.call()).await;
    synced.map_err(|source| spec.poison.of_directory_sync(spec.directory.path(), source))
}
