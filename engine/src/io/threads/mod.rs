//! The real disk: blocking system calls on a bounded pool of threads.
//!
//! Owns: [`Threads`], the backend that works wherever Linux does. Container runtimes block `io_uring` by
//! default, so this one is always compiled and always tested.
//! Refuses: deciding what is synced when; retrying a failed sync.
//!
//! Invariants:
//! - An operation starts when its method is called, not when its future is first polled.
//! - `EINTR` is retried here for every call but the syncs: a read or write that was interrupted moved
//!   nothing, and the others are repeatable. An interrupted sync is reported as it is, because what a second
//!   one says about the first one's pages is not known.
//! - Errors keep the code of the operating system (`raw_os_error`).
//! - What is created is readable and writable by its owner only: the superblock holds a secret.

mod file;
mod lock;
mod map;
mod pool;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::retry_on_intr;

use self::file::ThreadFile;
use self::pool::{Lane, Pool};
use super::{Call, FileRef, Io, IoFuture, LockAttempt, MapRef, OpenMode, Space};

/// Most threads that read and write at once by default.
const TRANSFER_THREADS: usize = 48;
/// Most threads that sync, open, unlink, allocate and map at once by default.
const NAMESPACE_THREADS: usize = 16;

/// The backend `threads`. Its threads end when they have been idle for a while, and all of them when the
/// backend and every file opened through it are dropped.
#[derive(Debug)]
pub struct Threads {
    pool: Arc<Pool>,
}

impl Default for Threads {
    fn default() -> Self {
        Self::new()
    }
}

impl Threads {
    /// A backend of at most 64 threads: 48 for reads and writes, 16 for everything else.
    pub fn new() -> Self {
        Self::with_bounds(TRANSFER_THREADS, NAMESPACE_THREADS)
    }

    /// A backend with at most `transfer` threads for reads and writes and `namespace` threads for syncs
    /// and operations on names; at least one of each.
    pub fn with_bounds(transfer: usize, namespace: usize) -> Self {
        Self {
            pool: Arc::new(Pool::new(transfer, namespace)),
        }
    }
}

impl Io for Threads {
    fn backend(&self) -> &'static str {
        "threads"
    }

    fn create_dir(&self, _: Call, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        self.pool.run(Lane::Namespace, move || {
            Ok(retry_on_intr(|| rustix::fs::mkdir(&path, Mode::RWXU))?)
        })
    }

    fn list_dir(&self, _: Call, path: &Path) -> IoFuture<Vec<String>> {
        let path = path.to_owned();
        self.pool.run(Lane::Namespace, move || list_dir(&path))
    }

    fn sync_dir(&self, _: Call, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        self.pool.run(Lane::Namespace, move || {
            let directory = open_dir(&path)?;
            Ok(rustix::fs::fsync(&directory)?)
        })
    }

    fn open(&self, _: Call, path: &Path, mode: OpenMode) -> IoFuture<FileRef> {
        let path = path.to_owned();
        let pool = Arc::clone(&self.pool);
        self.pool.run(Lane::Namespace, move || {
            let flags = match mode {
                OpenMode::Read => OFlags::RDONLY,
                OpenMode::Write => OFlags::RDWR,
                OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            };
            let descriptor = open_file(&path, flags)?;
            let file: FileRef = Arc::new(ThreadFile::new(descriptor, pool));
            Ok(file)
        })
    }

    fn unlink(&self, _: Call, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        self.pool.run(Lane::Namespace, move || {
            Ok(retry_on_intr(|| rustix::fs::unlink(&path))?)
        })
    }

    fn map(&self, _: Call, path: &Path) -> IoFuture<MapRef> {
        let path = path.to_owned();
        self.pool.run(Lane::Namespace, move || {
            let descriptor = open_file(&path, OFlags::RDONLY)?;
            map::map_whole(&descriptor)
        })
    }

    fn lock(&self, _: Call, path: &Path) -> IoFuture<LockAttempt> {
        let path = path.to_owned();
        self.pool
            .run(Lane::Namespace, move || lock::try_lock(&path))
    }

    fn space(&self, _: Call, path: &Path) -> IoFuture<Space> {
        let path = path.to_owned();
        self.pool.run(Lane::Namespace, move || {
            let found = retry_on_intr(|| rustix::fs::statvfs(&path))?;
            Ok(Space {
                total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
                available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            })
        })
    }
}

/// Opens a file so that no child process inherits it.
fn open_file(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(retry_on_intr(|| {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, mode)
    })?)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    open_file(path, OFlags::RDONLY | OFlags::DIRECTORY)
}

fn list_dir(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::new(open_dir(path)?)? {
        let entry = entry?;
        // Our own names are ASCII; what is not UTF-8 is foreign, and its name is only ever shown.
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}
