//! A disk in memory for one schedule.
//!
//! Owns: [`Disk`], files and names, and which LSN the journal has made durable. Refuses: crashes, torn writes, lies: those are the
//! simulated machine's (`tests/support/machine`); here it only matters who runs when.
//!
//! Invariants: a change is a task of its own and takes effect at some later moment, whether or not anybody waits for it, as the seam
//! says. The state's lock is an ordinary one, never held where another thread may be chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;
use tonnage_engine::buffer::Buffer;
use tonnage_engine::extent::Lsn;
use tonnage_engine::format::journal::FrameHeader;
use tonnage_engine::io::{
    Call, Dir, DirRef, File, FileRef, Io, IoError, IoFuture, IoResult, LockAttempt, LockGuard, Map,
    MapRef, OpenMode, Residency, Space,
};

/// All clones are one disk.
#[derive(Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, Node>,
    locked: BTreeSet<PathBuf>,
    journal: Journal,
}

#[derive(Clone)]
enum Node {
    Dir,
    File(Content),
}

type Content = Arc<Mutex<Vec<u8>>>;

/// What the frames that went by say.
#[derive(Default)]
struct Journal {
    /// The last transaction that was written.
    written: u64,
    /// The last that was synced.
    durable: u64,
    /// Syncs of the journal until one fails; `None`: none does.
    fails_in: Option<u64>,
    failed: bool,
    /// A frame came after the one whose sync failed.
    written_after_failure: bool,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kind<T>(kind: io::ErrorKind) -> IoResult<T> {
    Err(io::Error::from(kind).into())
}

/// Starts a change. It happens when its task is chosen.
fn change<T: Send + 'static>(effect: impl FnOnce() -> IoResult<T> + Send + 'static) -> IoFuture<T> {
    let (done, result) = oneshot::channel();
    let happening = async move { drop(done.send(effect())) };
    drop(shuttle::future::spawn(happening));
    Box::pin(async move {
        match result.await {
            Ok(result) => result,
            Err(_torn_down) => std::future::pending().await,
        }
    })
}

/// A question, answered when its future is polled.
fn ask<T: Send + 'static>(answer: impl FnOnce() -> IoResult<T> + Send + 'static) -> IoFuture<T> {
    Box::pin(async move { answer() })
}

impl Disk {
    /// The last transaction that is certainly on the disk.
    pub fn durable(&self) -> Lsn {
        Lsn(held(&self.state).journal.durable)
    }

    /// The `n`-th sync of a journal file from now fails; the first is 1.
    pub fn fail_journal_sync(&self, n: u64) {
        held(&self.state).journal.fails_in = Some(n);
    }

    /// Whether a frame was written behind one whose sync failed.
    pub fn wrote_after_failure(&self) -> bool {
        held(&self.state).journal.written_after_failure
    }

    /// Whether there is a file of this name.
    pub fn has(&self, path: &Path) -> bool {
        held(&self.state).names.contains_key(path)
    }

    fn file(&self, path: PathBuf, content: Content) -> FileRef {
        let is_journal = path.parent().is_some_and(|dir| dir.ends_with("journal"));
        Arc::new(MemFile {
            disk: self.clone(),
            content,
            is_journal,
        })
    }
}

impl Journal {
    fn write(&mut self, bytes: &[u8]) {
        let Some(nonce) = bytes.get(8..16).and_then(|nonce| nonce.try_into().ok()) else {
            return;
        };
        let Ok(frame) = FrameHeader::decode_anywhere(bytes, u64::from_le_bytes(nonce)) else {
            return;
        };
        let last = (frame.first_lsn.0 + u64::from(frame.transactions)).saturating_sub(1);
        if frame.transactions > 0 {
            self.written = self.written.max(last);
            self.written_after_failure |= self.failed;
        }
    }

    fn sync(&mut self, covers: u64) -> IoResult<()> {
        if let Some(left) = &mut self.fails_in {
            *left -= 1;
            if *left == 0 {
                self.fails_in = None;
                self.failed = true;
                let cause = io::Error::other("the drive failed");
                return Err(IoError::SyncFailed(cause));
            }
        }
        self.durable = self.durable.max(covers);
        Ok(())
    }
}

impl Io for Disk {
    fn backend(&self) -> &'static str {
        "memory"
    }

    fn create_dir(&self, _: Call, path: &Path) -> IoFuture<()> {
        let (state, path) = (Arc::clone(&self.state), path.to_owned());
        change(move || match held(&state).names.insert(path, Node::Dir) {
            None => Ok(()),
            Some(_) => kind(io::ErrorKind::AlreadyExists),
        })
    }

    fn list_dir(&self, _: Call, path: &Path) -> IoFuture<Vec<String>> {
        let (state, path) = (Arc::clone(&self.state), path.to_owned());
        ask(move || {
            let state = held(&state);
            if !state.names.contains_key(&path) {
                return kind(io::ErrorKind::NotFound);
            }
            let inside = state
                .names
                .keys()
                .filter(|name| name.parent() == Some(&path));
            let names = inside.filter_map(|name| name.file_name());
            Ok(names
                .map(|name| name.to_string_lossy().into_owned())
                .collect())
        })
    }

    fn open_dir(&self, _: Call, _: &Path) -> IoFuture<DirRef> {
        ask(|| {
            let dir: DirRef = Arc::new(MemDir);
            Ok(dir)
        })
    }

    fn open(&self, _: Call, path: &Path, mode: OpenMode) -> IoFuture<FileRef> {
        let (disk, path) = (self.clone(), path.to_owned());
        let open = move || {
            let mut state = held(&disk.state);
            let content = match state.names.get(&path) {
                Some(Node::File(_)) if mode == OpenMode::CreateNew => {
                    return kind(io::ErrorKind::AlreadyExists);
                }
                Some(Node::File(content)) => Arc::clone(content),
                Some(Node::Dir) => return kind(io::ErrorKind::IsADirectory),
                None if mode == OpenMode::CreateNew => {
                    let content = Content::default();
                    let node = Node::File(Arc::clone(&content));
                    state.names.insert(path.clone(), node);
                    content
                }
                None => return kind(io::ErrorKind::NotFound),
            };
            drop(state);
            Ok(disk.file(path, content))
        };
        if mode == OpenMode::CreateNew {
            change(open)
        } else {
            ask(open)
        }
    }

    fn unlink(&self, _: Call, path: &Path) -> IoFuture<()> {
        let (state, path) = (Arc::clone(&self.state), path.to_owned());
        change(move || match held(&state).names.remove(&path) {
            Some(_) => Ok(()),
            None => kind(io::ErrorKind::NotFound),
        })
    }

    fn map(&self, _: Call, path: &Path) -> IoFuture<MapRef> {
        let (state, path) = (Arc::clone(&self.state), path.to_owned());
        ask(move || match held(&state).names.get(&path) {
            // A copy, as a mapping of an immutable file is one for all that can be seen.
            Some(Node::File(content)) => Ok(MemMap::of(&held(content))),
            Some(Node::Dir) | None => kind(io::ErrorKind::NotFound),
        })
    }

    fn lock(&self, _: Call, path: &Path) -> IoFuture<LockAttempt> {
        let (state, path) = (Arc::clone(&self.state), path.to_owned());
        ask(move || {
            if !held(&state).locked.insert(path.clone()) {
                return Ok(LockAttempt::Taken(None));
            }
            Ok(LockAttempt::Held(Box::new(Lock(Arc::clone(&state), path))))
        })
    }

    fn space(&self, _: Call, _: &Path) -> IoFuture<Space> {
        ask(|| {
            Ok(Space {
                total_bytes: 1 << 40,
                available_bytes: 1 << 40,
            })
        })
    }
}

#[derive(Debug)]
struct MemDir;

impl Dir for MemDir {
    fn sync(&self, _: Call) -> IoFuture<()> {
        change(|| Ok(()))
    }
}

struct Lock(Arc<Mutex<State>>, PathBuf);

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

impl LockGuard for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        held(&self.0).locked.remove(&self.1);
    }
}

/// Bytes whose first is aligned as the seam demands.
#[derive(Debug)]
struct MemMap {
    length: usize,
    bytes: Vec<u8>,
    skip: usize,
}

impl MemMap {
    fn of(content: &[u8]) -> MapRef {
        let mut bytes = vec![0; content.len() + 16];
        let skip = bytes.as_ptr().align_offset(16);
        bytes[skip..skip + content.len()].copy_from_slice(content);
        Arc::new(Self {
            length: content.len(),
            bytes,
            skip,
        })
    }
}

impl Map for MemMap {
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.skip..self.skip + self.length]
    }
}

struct MemFile {
    disk: Disk,
    content: Content,
    is_journal: bool,
}

impl fmt::Debug for MemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemFile")
    }
}

fn read(content: &[u8], offset: u64, buffer: &mut Buffer) -> usize {
    let from = content.get(offset as usize..).unwrap_or_default();
    let count = from.len().min(buffer.room());
    buffer.free_mut()[..count].copy_from_slice(&from[..count]);
    buffer.advance(count);
    count
}

impl MemFile {
    fn write(&self, offset: u64, slices: &[Bytes]) -> impl FnOnce() -> usize + Send + use<> {
        let (state, content) = (Arc::clone(&self.disk.state), Arc::clone(&self.content));
        let (is_journal, bytes) = (self.is_journal, slices.concat());
        move || {
            if is_journal {
                held(&state).journal.write(&bytes);
            }
            let mut content = held(&content);
            let end = offset as usize + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[offset as usize..end].copy_from_slice(&bytes);
            bytes.len()
        }
    }
}

/// Starts a sync: of the journal it covers the frames that were written before.
fn sync(state: Arc<Mutex<State>>, is_journal: bool) -> IoFuture<()> {
    let covers = held(&state).journal.written;
    change(move || {
        if is_journal {
            held(&state).journal.sync(covers)
        } else {
            Ok(())
        }
    })
}

impl File for MemFile {
    fn read_at(&self, _: Call, offset: u64, mut buffer: Buffer) -> IoFuture<(Buffer, usize)> {
        let content = Arc::clone(&self.content);
        ask(move || {
            let count = read(&held(&content), offset, &mut buffer);
            Ok((buffer, count))
        })
    }

    fn read_cached(&self, _: Call, offset: u64, buffer: &mut Buffer) -> IoResult<usize> {
        Ok(read(&held(&self.content), offset, buffer))
    }

    fn write_at(&self, _: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        let write = self.write(offset, &slices);
        change(move || Ok(write()))
    }

    fn write_and_sync(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        let write = self.write_at(call, offset, slices);
        let (state, is_journal) = (Arc::clone(&self.disk.state), self.is_journal);
        let (done, result) = oneshot::channel();
        let both = async move {
            let count = write.await?;
            sync(state, is_journal).await?;
            Ok(count)
        };
        drop(shuttle::future::spawn(async move {
            drop(done.send(both.await))
        }));
        Box::pin(async move {
            match result.await {
                Ok(result) => result,
                Err(_torn_down) => std::future::pending().await,
            }
        })
    }

    fn sync_data(&self, _: Call) -> IoFuture<()> {
        sync(Arc::clone(&self.disk.state), self.is_journal)
    }

    fn advise(&self, _: Call, _: u64, _: u64, _: Residency) -> IoFuture<()> {
        ask(|| Ok(()))
    }

    fn start_writeback(&self, _: Call, _: u64, _: u64) -> IoFuture<()> {
        ask(|| Ok(()))
    }

    fn allocate(&self, _: Call, offset: u64, length: u64) -> IoFuture<()> {
        let content = Arc::clone(&self.content);
        change(move || {
            let mut content = held(&content);
            let end = (offset + length) as usize;
            if content.len() < end {
                content.resize(end, 0);
            }
            Ok(())
        })
    }

    fn set_len(&self, _: Call, length: u64) -> IoFuture<()> {
        let content = Arc::clone(&self.content);
        change(move || {
            held(&content).resize(length as usize, 0);
            Ok(())
        })
    }

    fn len(&self, _: Call) -> IoFuture<u64> {
        let content = Arc::clone(&self.content);
        ask(move || Ok(held(&content).len() as u64))
    }
}
