//! Segment files: names, handles and removal.
//!
//! Owns: creating, opening (a bounded number stay open), and unlinking. Refuses: the content, except for the header,
//! which says that the file is the one its name claims. Rot in the header costs no blob: a reader then relies on the
//! record's own frame.
//!
//! Invariants: at most one handle per segment exists. A retired segment is unlinked when the last owner of its handle
//! drops it, because bytes passed to a socket may be read after the call returned (D6).

mod handles;
mod names;
mod pull;
mod pull_queue;
mod uncached;
mod unlinking;

use std::io::ErrorKind;
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
use pull_queue::PullQueue;
use unlinking::Unlinking;

pub(crate) use handles::SegmentFile;
pub(super) use handles::WrittenFile;
pub(crate) use names::{parse_segment_name, segment_name};
pub(crate) use unlinking::AbandonGuard;

/// How long an upload waits for a descriptor.
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
    /// One permit for each segment that uploads may have open.
    writers: Arc<Semaphore>,
    /// Pulls that wait until they may open a file.
    pulls: PullQueue,
    /// Number of uploads that wait for a permit.
    waiting: AtomicU64,
    /// Whether an upload that does not wait found no permit.
    wanted: AtomicBool,
    unlinking: Arc<Unlinking>,
}

/// Counts a waiter until it drops.
#[derive(Debug)]
struct Counted<'a>(&'a AtomicU64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl SegmentFiles {
    /// Creates the segment files of the store with the id `store`, in `dir`, which is open.
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
            pulls: PullQueue::default(),
            waiting: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            unlinking: Arc::default(),
        })
    }

    /// Returns the directory's path.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the store's id.
    pub(crate) fn store(&self) -> [u8; 16] {
        self.store
    }

    /// Returns the engine's environment.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Returns the path of a segment.
    pub(crate) fn path(&self, id: SegmentId) -> PathBuf {
        self.dir.path().join(segment_name(id))
    }

    /// Waits until an upload may open one more segment for writing. First come, first served. Uploads that have a
    /// permit return it after every window while others wait, so the wait is bounded.
    ///
    /// # Errors
    /// A failure that counts as not attempted, after [`PERMIT_WAIT`].
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

    /// Takes a permit without waiting, if one is free.
    pub(crate) fn try_writer_permit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.writers).try_acquire_owned().ok();
        self.wanted.store(permit.is_none(), Ordering::Release);
        permit
    }

    /// Returns whether uploads want more segments open than may be.
    pub(crate) fn writers_wait(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0 || self.wanted.load(Ordering::Acquire)
    }

    /// Forgets uploads that asked without waiting, until they ask again.
    pub(crate) fn forget_wanted(&self) {
        self.wanted.store(false, Ordering::Release);
    }

    /// Returns whether every permit is in use.
    pub(crate) fn is_full_of_writers(&self) -> bool {
        self.writers.available_permits() == 0
    }

    /// Creates a dedicated segment, open for writing.
    pub(crate) async fn create_to_write(
        self: &Arc<Self>,
        id: SegmentId,
        permit: OwnedSemaphorePermit,
    ) -> Result<WrittenFile> {
        let file = self.create(id, SegmentClass::Dedicated).await?;
        Ok(WrittenFile { file, permit })
    }

    /// Creates a segment and writes its header, which is synced if the segment is shared. A failure leaves no file.
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
        let file = self.keep(id, path, opened, Some(class));
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
            // Synced with its payload.
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
            Some(file) if file.class.is_none() => {
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
        let class = checked.as_ref().ok().map(|header| header.class);
        if let Err(what) = checked {
            // An intact header of another segment means a wrong file. With a rotten header, the records still identify
            // themselves.
            if mode == OpenMode::Write || SegmentHeader::is_whole(header.filled()) {
                return Err(rotten(what));
            }
            tracing::error!(path = %path.display(), %what, "the header of a segment is corrupt; its blobs are read by their own frames");
        }
        Ok(self.keep(id, path, (file, counted), class))
    }

    /// Returns the count of open files, for files of blobs that are no segments.
    pub(crate) fn open_files(&self) -> &Arc<OpenFiles> {
        &self.open
    }

    /// Counts a file that is about to be opened. If the bound is reached, segments that are only kept open are closed.
    fn admit(&self, purpose: Purpose) -> Admitted {
        match self.open.admit(purpose) {
            Err(_) if self.close_unused() => self.open.admit(purpose),
            admitted => admitted,
        }
    }

    /// Returns the open handle, and notes its use.
    fn find(&self, id: SegmentId) -> Option<Arc<SegmentFile>> {
        let mut handles = self.handles.lock();
        let file = handles.live.get(&id)?.upgrade()?;
        let evicted = handles.touch(&file, self.open.kept_max());
        drop(handles);
        // Dropped here, because closing a file takes the lock again.
        drop(evicted);
        Some(file)
    }

    /// Closes files that are only kept for the next reader, because descriptors are short. Returns whether there were
    /// any.
    fn close_unused(&self) -> bool {
        let mut handles = self.handles.lock();
        let kept = std::mem::replace(&mut handles.kept, LruCache::unbounded());
        drop(handles);
        let any = kept.iter().any(|(_, file)| Arc::strong_count(file) == 1);
        // Dropped here, because closing a file takes the lock again.
        drop(kept);
        any
    }

    /// Keeps a handle open. Returns the one that another task opened meanwhile, if there is one.
    fn keep(
        self: &Arc<Self>,
        id: SegmentId,
        path: PathBuf,
        (file, counted): (FileRef, OpenFile),
        class: Option<SegmentClass>,
    ) -> Arc<SegmentFile> {
        let home = Arc::downgrade(self);
        let opened = Arc::new(SegmentFile {
            id,
            path,
            file,
            retired: AtomicBool::new(false),
            home,
            class,
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

    /// Unlinks a segment whose bytes are no longer needed, once its handle has no owner. Best effort; recovery removes
    /// what is left.
    pub(crate) fn retire(self: &Arc<Self>, id: SegmentId) {
        let mut handles = self.handles.lock();
        let file = handles.live.get(&id).and_then(Weak::upgrade);
        let kept = handles.forget(id);
        // Under the lock, so that a later lookup of the handle does not keep it open again.
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
            let unlinked = io.unlink(Class::Directory.call(), &path).await;
            if let Err(error) = unlinked
                && error.kind() != ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a segment that is no longer needed could not be removed");
            }
            drop(removal);
        };
        self.env.spawn.spawn("unlink segment", Box::pin(task));
    }

    /// Waits until retired segments without an owner are removed and closed, so that their space is free.
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

    /// Makes the names of all segments created so far durable. A failed sync stops all writes.
    pub(crate) async fn sync_dir(&self, call: Call) -> Result<()> {
        let synced = self.dir.sync(call).await;
        synced.map_err(|error| self.poison.of_directory_sync(self.dir.path(), error))
    }
}

/// Opens a file that was `admitted`. If there is no descriptor, segments that are only kept open are closed, and the
/// open is repeated once.
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
