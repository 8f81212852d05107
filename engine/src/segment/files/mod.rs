//! Segment files: names, handles and their end.
//!
//! Owns: creating, opening (a bounded number stay open), and unlinking. Refuses: what is inside, but for
//! the header, which says that the file is the one its name claims. Rot in it costs no blob: a reader
//! then goes by the record's own frame.
//!
//! Invariants: at most one handle per segment exists; a retired segment is unlinked when the last holder of
//! its handle drops it, because bytes handed to a socket may be read after the call returned (D6).

mod handles;
mod line;
mod names;
mod pull;
mod unlinking;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{Either, select};
use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::open_files::{Admitted, Full, OpenFile, OpenFiles, Purpose};
use super::record_check::RecordCheck;
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::extent::{SegmentId, VolumeId};
use crate::format::codec::Malformed;
use crate::format::segment::{HEADER_BYTES, SegmentClass, SegmentHeader};
use crate::io::exact::{read_up_to, write_all, write_all_and_sync};
use crate::io::{Call, Class, Directory, Env, FileRef, IoError, IoResult, OpenMode};
use crate::poison::Poison;
use crate::sync::{AtomicBool, AtomicU64, Mutex};
use handles::Handles;
use line::Line;
use unlinking::Unlinking;

pub(crate) use handles::SegmentFile;
pub(super) use handles::WrittenFile;
pub(crate) use names::{parse_segment_name, segment_name};
pub(crate) use unlinking::AbandonGuard;

/// How long an upload waits for others to give a descriptor back.
const PERMIT_WAIT: Duration = Duration::from_secs(10);

/// The directory of segment files.
#[derive(Debug)]
pub(crate) struct SegmentFiles {
    env: Env,
    dir: Directory,
    store: [u8; 16],
    poison: Arc<Poison>,
    open: Arc<OpenFiles>,
    handles: Mutex<Handles>,
    /// One permit for each file that may be open to be written.
    writers: Arc<Semaphore>,
    /// Pulls that wait until they may open a file.
    pulls: Line,
    /// Uploads that wait for a permit.
    waiting: AtomicU64,
    /// One was asked for and not waited for.
    wanted: AtomicBool,
    unlinking: Arc<Unlinking>,
}

/// One of those that wait, until it drops.
#[derive(Debug)]
struct Counted<'a>(&'a AtomicU64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl SegmentFiles {
    /// The segments in `dir`, which is open, of the store with the id `store`.
    pub(crate) fn new(
        env: Env,
        dir: Directory,
        store: [u8; 16],
        poison: Arc<Poison>,
        open_files_max: usize,
    ) -> Arc<Self> {
        let open = OpenFiles::new(open_files_max);
        Arc::new(Self {
            env,
            dir,
            store,
            poison,
            writers: Arc::new(Semaphore::new(open.writers_max())),
            open,
            handles: Mutex::default(),
            pulls: Line::default(),
            waiting: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            unlinking: Arc::default(),
        })
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The store's id.
    pub(crate) fn store(&self) -> [u8; 16] {
        self.store
    }

    /// What the engine was given.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// The path of a segment.
    pub(crate) fn path(&self, id: SegmentId) -> PathBuf {
        self.dir.path().join(segment_name(id))
    }

    /// Waits until one more segment may be open to be written by an upload. First come, first served; those that have one
    /// give it back after every window while others wait, so the wait is bounded.
    pub(crate) async fn writer_permit(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.writers).try_acquire_owned() {
            return Ok(permit);
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _counted = Counted(&self.waiting);
        let permit = pin!(Arc::clone(&self.writers).acquire_owned());
        match select(permit, self.env.clock.sleep(PERMIT_WAIT)).await {
            Either::Left((permit, _)) => permit.map_err(|_closed| Error::Closed),
            Either::Right(_) => {
                let full = self.open.refusal(Full::Uploads);
                Err(Error::io("open segment in", self.dir(), full))
            }
        }
    }

    /// As [`SegmentFiles::writer_permit`], for one that cannot wait.
    pub(crate) fn try_writer_permit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.writers).try_acquire_owned().ok();
        self.wanted.store(permit.is_none(), Ordering::Release);
        permit
    }

    /// Whether uploads want a segment open, more than may be.
    pub(crate) fn writers_wait(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0 || self.wanted.load(Ordering::Acquire)
    }

    /// Forgets those that did not wait, until they ask again.
    pub(crate) fn forget_wanted(&self) {
        self.wanted.store(false, Ordering::Release);
    }

    /// Whether no more segment may be open to be written.
    pub(crate) fn is_full_of_writers(&self) -> bool {
        self.writers.available_permits() == 0
    }

    /// Creates a dedicated segment, open to be written.
    pub(crate) async fn create_to_write(
        self: &Arc<Self>,
        id: SegmentId,
        permit: OwnedSemaphorePermit,
    ) -> Result<WrittenFile> {
        let file = self.create(id, SegmentClass::Dedicated).await?;
        Ok(WrittenFile { file, permit })
    }

    /// Creates a segment and writes its header, which is synced where the segment is shared. A failure leaves no file behind.
    pub(crate) async fn create(
        self: &Arc<Self>,
        id: SegmentId,
        class: SegmentClass,
    ) -> Result<Arc<SegmentFile>> {
        let path = self.path(id);
        let (io_class, purpose) = match class {
            SegmentClass::Shared => (Class::CommitData, Purpose::Commit),
            SegmentClass::Dedicated => (Class::UploadWrite, Purpose::Upload),
        };
        let admitted = self.admit(purpose);
        let opened = open(self, io_class.call(), &path, OpenMode::CreateNew, admitted);
        let opened = opened.await;
        let opened = opened.map_err(|error| Error::io("create segment", &path, error))?;
        let file = self.keep(id, path, opened, true);
        let header = SegmentHeader {
            class,
            store: self.store,
            segment: id,
            volume: VolumeId::default(),
        };
        let slices = vec![header.encode()];
        let written = match class {
            SegmentClass::Shared => {
                write_all_and_sync(file.file(), io_class.call(), 0, slices).await
            }
            // With its payload.
            SegmentClass::Dedicated => write_all(file.file(), io_class.call(), 0, slices).await,
        };
        if let Err(error) = written {
            let error = Error::io("write header of segment", file.path(), error);
            self.retire(id);
            return Err(error);
        }
        Ok(file)
    }

    /// Opens a segment that an upload continues to write.
    pub(crate) async fn open_to_write(
        self: &Arc<Self>,
        id: SegmentId,
        permit: OwnedSemaphorePermit,
    ) -> Result<WrittenFile> {
        let file = match self.find(id) {
            Some(file) if !file.header_holds => {
                let what = Malformed::new("segment header: it does not hold");
                return Err(Error::corrupt(file.path(), 0, what.0));
            }
            Some(file) => file,
            None => {
                let admitted = self.admit(Purpose::Upload);
                self.open_admitted(id, OpenMode::Write, admitted).await?
            }
        };
        Ok(WrittenFile { file, permit })
    }

    /// Opens a segment that is not open, if that was `admitted`.
    async fn open_admitted(
        self: &Arc<Self>,
        id: SegmentId,
        mode: OpenMode,
        admitted: Admitted,
    ) -> Result<Arc<SegmentFile>> {
        let path = self.path(id);
        let rotten = |what: Malformed| Error::corrupt(&path, 0, what.0);
        let opened = open(self, Class::ForegroundRead.call(), &path, mode, admitted);
        let opened = opened.await;
        let (file, counted) = opened.map_err(|error| Error::io("open segment", &path, error))?;
        let header = read_up_to(
            file.as_ref(),
            Class::ForegroundRead.call(),
            0,
            Buffer::unpooled(HEADER_BYTES),
        )
        .await;
        let header = header.map_err(|error| Error::io("read header of segment", &path, error))?;
        let checked = SegmentHeader::decode_of(header.filled(), &self.store, id);
        let header_holds = checked.is_ok();
        if let Err(what) = checked {
            // Whole, and of another segment: the file is not ours. Rotten: its records still say what they are.
            if mode != OpenMode::Read || SegmentHeader::is_whole(header.filled()) {
                return Err(rotten(what));
            }
            tracing::error!(path = %path.display(), %what, "the header of a segment does not hold; its blobs are read by their own frames");
        }
        Ok(self.keep(id, path, (file, counted), header_holds))
    }

    /// The count of open files, for files of blobs that are no segments.
    pub(crate) fn open_files(&self) -> &Arc<OpenFiles> {
        &self.open
    }

    /// Counts a file in that is about to be opened. Where there is no room for it, segments that are only kept open are closed.
    fn admit(&self, purpose: Purpose) -> Admitted {
        match self.open.admit(purpose) {
            Err(_) if self.close_unused() => self.open.admit(purpose),
            admitted => admitted,
        }
    }

    /// The open handle, counted as used.
    fn find(&self, id: SegmentId) -> Option<Arc<SegmentFile>> {
        let mut handles = self.handles.lock();
        let file = handles.live.get(&id)?.upgrade()?;
        let evicted = handles.touch(&file, self.open.kept_max());
        drop(handles);
        // Dropped here: closing a file takes the lock again.
        drop(evicted);
        Some(file)
    }

    /// Closes what is only kept open for the next reader, because descriptors are short. Returns whether there was anything.
    fn close_unused(&self) -> bool {
        let mut handles = self.handles.lock();
        let kept = std::mem::replace(&mut handles.kept, LruCache::unbounded());
        drop(handles);
        let any = kept.iter().any(|(_, file)| Arc::strong_count(file) == 1);
        // Dropped here: closing a file takes the lock again.
        drop(kept);
        any
    }

    /// Keeps a handle open; gives the one that another task opened meanwhile if there is one.
    fn keep(
        self: &Arc<Self>,
        id: SegmentId,
        path: PathBuf,
        (file, counted): (FileRef, OpenFile),
        header_holds: bool,
    ) -> Arc<SegmentFile> {
        let home = Arc::downgrade(self);
        let opened = Arc::new(SegmentFile {
            id,
            path,
            file,
            retired: AtomicBool::new(false),
            home,
            header_holds,
            record_check: RecordCheck::default(),
            _counted: counted,
        });
        let mut handles = self.handles.lock();
        let earlier = handles.live.get(&id).and_then(Weak::upgrade);
        let file = earlier.unwrap_or_else(|| Arc::clone(&opened));
        handles.live.insert(id, Arc::downgrade(&file));
        let evicted = handles.touch(&file, self.open.kept_max());
        drop(handles);
        drop((evicted, opened));
        file
    }

    /// The segment's bytes are no longer needed: unlinks it once it has no holder. Best effort; recovery
    /// removes what is left.
    pub(crate) fn retire(self: &Arc<Self>, id: SegmentId) {
        let mut handles = self.handles.lock();
        let file = handles.live.get(&id).and_then(Weak::upgrade);
        let kept = handles.forget(id);
        // Under the lock: a lookup that finds the handle from now on does not put it back among those that stay open.
        if let Some(file) = &file {
            file.retired.store(true, Ordering::Release);
        }
        drop(handles);
        if file.is_none() {
            self.unlink(id);
        }
        drop((kept, file));
    }

    fn unlink(&self, id: SegmentId) {
        let (path, io) = (self.path(id), Arc::clone(&self.env.io));
        let removal = self.unlinking.begin();
        let task = async move {
            if let Err(error) = io.unlink(Class::Directory.call(), &path).await {
                tracing::warn!(path = %path.display(), %error, "a segment that is not needed could not be removed");
            }
            drop(removal);
        };
        self.env.spawn.spawn("unlink segment", Box::pin(task));
    }

    /// Waits until the segments that were retired and have no holder are removed and closed, so that their space is free.
    pub(crate) async fn unlinked(&self) {
        loop {
            let mut ended = pin!(self.unlinking.ended.notified());
            ended.as_mut().enable();
            if self.unlinking.count.load(Ordering::Acquire) == 0 {
                return self.env.io.closed().await;
            }
            ended.await;
        }
    }

    /// Makes the names of all segments created so far durable. A failure stops all writes.
    pub(crate) async fn sync_dir(&self, call: Call) -> Result<()> {
        let synced = self.dir.sync(call).await;
        synced.map_err(|error| self.poison.of_directory_sync(self.dir.path(), error))
    }
}

/// Opens a file that was `admitted`. Where there is no descriptor, segments that are only kept open are closed, and it is tried once
/// more.
async fn open(
    files: &SegmentFiles,
    call: Call,
    path: &Path,
    mode: OpenMode,
    admitted: Admitted,
) -> IoResult<(FileRef, OpenFile)> {
    let counted = admitted.map_err(|full| files.open.refusal(full))?;
    let opened = match files.env.io.open(call, path, mode).await {
        Err(IoError::NotAttempted(_)) if files.close_unused() => {
            files.env.io.open(call, path, mode).await
        }
        opened => opened,
    };
    Ok((opened?, counted))
}
