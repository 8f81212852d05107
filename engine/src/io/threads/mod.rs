//! The real disk: blocking system calls on a bounded pool of threads.
//!
//! Owns: [`Threads`], the backend that works wherever Linux does. Container runtimes block `io_uring` by default, so
//! this one is always compiled and always tested. Refuses: deciding what is synced when; retrying a failed sync.
//!
//! Invariants:
//! - An operation starts when its method is called, not when its future is first polled.
//! - `EINTR` is retried for every call but syncs: an interrupted read or write moved nothing, and the others can be
//!   repeated. An interrupted sync is reported as it is, because a second sync would say nothing certain about the
//!   pages of the first.
//! - Errors keep the code of the operating system (`raw_os_error`).
//! - While a directory is locked, names below it are resolved in it, not by its path. A store that is moved stays the
//!   same store.
//! - New files and directories are accessible to their owner only: the superblock holds a secret.

pub(super) mod closing;
pub(super) mod counts;
pub(super) mod file;
mod lock;
pub(super) mod pool;
mod resolve;
pub(super) mod time_slice;
mod uncached;
pub(super) mod workers;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::{Errno, retry_on_intr};

use self::file::{ThreadDir, ThreadFile, disable_read_ahead};
use self::pool::{Blocking, Pool};
use self::resolve::{LockedRoots, ResolvedPath};
use super::errno::operation_error;
use super::{
    Call, ClassCount, DirRef, FileRef, Io, IoFuture, IoResult, LockAttempt, OpenMode, Space,
    TaskFuture,
};

/// Files whose sizes one operation reads. The files of a large directory are spread over several operations.
const SIZES_AT_ONCE: usize = 1024;

/// The backend `threads`. Its threads end when the backend and every file opened through it are dropped. A clone has
/// the same threads and locks.
#[derive(Debug, Clone)]
pub struct Threads {
    pool: Arc<Pool>,
    roots: Arc<LockedRoots>,
}

impl Threads {
    /// Starts the backend with the threads that it keeps; more are started on demand.
    ///
    /// # Errors
    /// These few threads cannot be started.
    pub fn start() -> io::Result<Self> {
        Ok(Self {
            pool: Arc::new(Pool::start()?),
            roots: Arc::default(),
        })
    }

    /// Opens a file, and passes it to `wrap` on the thread that opened it.
    pub(super) fn open_as<T: Send + 'static>(
        &self,
        call: Call,
        path: &Path,
        mode: OpenMode,
        wrap: impl FnOnce(ThreadFile) -> T + Send + 'static,
    ) -> IoFuture<T> {
        let (place, pool) = (self.roots.resolve(path), Arc::clone(&self.pool));
        self.pool.run(call, Blocking::Transfer, move || {
            let flags = match mode {
                OpenMode::ReadUncached => return open_uncached(&pool, &place).map(wrap),
                OpenMode::Read | OpenMode::ReadRandom => OFlags::RDONLY,
                OpenMode::Write => OFlags::RDWR,
                OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            };
            let descriptor = opening(&pool, || place.open_file(flags))?;
            if matches!(mode, OpenMode::ReadRandom | OpenMode::CreateNew) {
                disable_read_ahead(&descriptor);
            }
            Ok(wrap(ThreadFile::new(descriptor, pool)))
        })
    }

    /// Returns the threads.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Io for Threads {
    fn backend(&self) -> &'static str {
        "threads"
    }

    fn counts(&self) -> Vec<ClassCount> {
        self.pool.counts()
    }

    fn create_dir(&self, call: Call, path: &Path) -> IoFuture<()> {
        let place = self.roots.resolve(path);
        self.pool.run(call, Blocking::Transfer, move || {
            place.create_dir().map_err(operation_error)
        })
    }

    fn list_dir(&self, call: Call, path: &Path) -> IoFuture<Vec<String>> {
        let (place, pool) = (self.roots.resolve(path), Arc::clone(&self.pool));
        self.pool.run(call, Blocking::Transfer, move || {
            opening(&pool, || list_dir(&place))
        })
    }

    fn list_files(&self, call: Call, path: &Path) -> IoFuture<Vec<(String, u64)>> {
        let names = self.list_dir(call, path);
        let (place, pool) = (Arc::new(self.roots.resolve(path)), Arc::clone(&self.pool));
        Box::pin(async move {
            let names = names.await?;
            let batches = names.chunks(SIZES_AT_ONCE).map(|names| {
                let (names, place, opens) = (names.to_vec(), Arc::clone(&place), Arc::clone(&pool));
                pool.run(call, Blocking::Transfer, move || {
                    sizes(&opens, &place, names)
                })
            });
            Ok(futures_util::future::try_join_all(batches).await?.concat())
        })
    }

    fn open_dir(&self, call: Call, path: &Path) -> IoFuture<DirRef> {
        let (place, pool) = (self.roots.resolve(path), Arc::clone(&self.pool));
        self.pool.run(call, Blocking::Transfer, move || {
            let descriptor = opening(&pool, || place.open_dir())?;
            let directory: DirRef = Arc::new(ThreadDir::new(descriptor, pool));
            Ok(directory)
        })
    }

    fn open(&self, call: Call, path: &Path, mode: OpenMode) -> IoFuture<FileRef> {
        self.open_as(call, path, mode, |file| {
            let file: FileRef = Arc::new(file);
            file
        })
    }

    fn unlink(&self, call: Call, path: &Path) -> IoFuture<()> {
        let place = self.roots.resolve(path);
        self.pool.run(call, Blocking::Transfer, move || {
            place.unlink().map_err(operation_error)
        })
    }

    fn lock(&self, call: Call, path: &Path) -> IoFuture<LockAttempt> {
        let (place, path) = (self.roots.resolve(path), path.to_owned());
        let (roots, pool) = (Arc::clone(&self.roots), Arc::clone(&self.pool));
        self.pool.run(call, Blocking::Transfer, move || {
            opening(&pool, || {
                lock::try_lock(&place, path.clone(), Arc::clone(&roots))
            })
        })
    }

    fn space(&self, call: Call, path: &Path) -> IoFuture<Space> {
        let (place, pool) = (self.roots.resolve(path), Arc::clone(&self.pool));
        self.pool.run(call, Blocking::Transfer, move || {
            let directory = opening(&pool, || place.open_dir())?;
            let found =
                retry_on_intr(|| rustix::fs::fstatvfs(&directory)).map_err(operation_error)?;
            Ok(Space {
                total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
                available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            })
        })
    }

    fn closed(&self) -> TaskFuture {
        let closed = self.pool.closed();
        Box::pin(async move { closed.await.unwrap_or_default() })
    }
}

/// Opens a file for reads that leave the page cache as it is: with direct I/O where it is supported.
fn open_uncached(pool: &Arc<Pool>, place: &ResolvedPath) -> IoResult<ThreadFile> {
    let direct = opening(pool, || place.open_file(OFlags::RDONLY | OFlags::DIRECT));
    let (descriptor, direct) = match direct {
        Err(error) if error.cause().raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            (opening(pool, || place.open_file(OFlags::RDONLY))?, false)
        }
        opened => (opened?, true),
    };
    Ok(ThreadFile::uncached(descriptor, Arc::clone(pool), direct))
}

/// Runs `open`, which needs a descriptor. If there is none, closes the files that wait to be closed, and tries again.
fn opening<T>(pool: &Pool, open: impl Fn() -> io::Result<T>) -> IoResult<T> {
    let opened = open();
    let short = opened.as_ref().err().and_then(Errno::from_io_error);
    if matches!(short, Some(Errno::MFILE | Errno::NFILE)) && pool.closing().close_all() {
        return open().map_err(operation_error);
    }
    opened.map_err(operation_error)
}

fn list_dir(place: &ResolvedPath) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::new(place.open_dir()?)? {
        let entry = entry?;
        // The store's own names are ASCII. A name that is not UTF-8 is foreign, and is only displayed.
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Returns the regular files among `names`, with their sizes.
fn sizes(pool: &Pool, place: &ResolvedPath, names: Vec<String>) -> IoResult<Vec<(String, u64)>> {
    let directory = opening(pool, || place.open_dir())?;
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        match retry_on_intr(|| rustix::fs::statat(&directory, name.as_str(), AtFlags::empty())) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                found.push((name, u64::try_from(stat.st_size).unwrap_or_default()));
            }
            // Not a regular file, a link that leads to none, or removed since the directory was read.
            Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
            // Without its size, intact content would count as lost.
            Err(errno) => return Err(operation_error(errno)),
        }
    }
    Ok(found)
}
