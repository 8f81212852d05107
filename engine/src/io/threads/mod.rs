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
//! - While a directory is locked, names below it are resolved in it, not by its path: a store that is moved stays one store.
//! - What is created is readable and writable by its owner only: the superblock holds a secret.

mod file;
mod lock;
mod map;
mod place;
mod pool;
mod refusal;
mod tally;
pub(super) mod workers;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::retry_on_intr;

use self::file::{ThreadDir, ThreadFile};
use self::place::{Place, Roots};
use self::pool::{Pool, Sort};
use self::refusal::begun;
use super::{
    Call, ClassCount, DirRef, FileRef, Io, IoFuture, IoResult, LockAttempt, MapRef, OpenMode, Space,
};

/// The backend `threads`. Its threads end when the backend and every file opened through it are dropped.
#[derive(Debug)]
pub struct Threads {
    pool: Arc<Pool>,
    roots: Arc<Roots>,
}

impl Threads {
    /// Starts the backend with the threads that it keeps; more come with the work. An error if these few cannot be started.
    pub fn start() -> io::Result<Self> {
        Ok(Self {
            pool: Arc::new(Pool::start()?),
            roots: Arc::default(),
        })
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
        let place = self.roots.place(path);
        self.pool.run(call, Sort::Transfer, move || {
            place.create_dir().map_err(begun)
        })
    }

    fn list_dir(&self, call: Call, path: &Path) -> IoFuture<Vec<String>> {
        let place = self.roots.place(path);
        self.pool.run(call, Sort::Transfer, move || {
            list_dir(&place).map_err(begun)
        })
    }

    fn list_files(&self, call: Call, path: &Path) -> IoFuture<Vec<(String, u64)>> {
        let place = self.roots.place(path);
        self.pool
            .run(call, Sort::Transfer, move || list_files(&place))
    }

    fn open_dir(&self, call: Call, path: &Path) -> IoFuture<DirRef> {
        let place = self.roots.place(path);
        let pool = Arc::clone(&self.pool);
        self.pool.run(call, Sort::Transfer, move || {
            let descriptor = place.open_dir().map_err(begun)?;
            let directory: DirRef = Arc::new(ThreadDir::new(descriptor, pool));
            Ok(directory)
        })
    }

    fn open(&self, call: Call, path: &Path, mode: OpenMode) -> IoFuture<FileRef> {
        let place = self.roots.place(path);
        let pool = Arc::clone(&self.pool);
        self.pool.run(call, Sort::Transfer, move || {
            let flags = match mode {
                OpenMode::Read => OFlags::RDONLY,
                OpenMode::Write => OFlags::RDWR,
                OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            };
            let descriptor = place.open_file(flags).map_err(begun)?;
            let file: FileRef = Arc::new(ThreadFile::new(descriptor, pool));
            Ok(file)
        })
    }

    fn unlink(&self, call: Call, path: &Path) -> IoFuture<()> {
        let place = self.roots.place(path);
        self.pool
            .run(call, Sort::Transfer, move || place.unlink().map_err(begun))
    }

    fn map(&self, call: Call, path: &Path) -> IoFuture<MapRef> {
        let place = self.roots.place(path);
        self.pool.run(call, Sort::Transfer, move || {
            let descriptor = place.open_file(OFlags::RDONLY).map_err(begun)?;
            map::map_whole(&descriptor).map_err(begun)
        })
    }

    fn lock(&self, call: Call, path: &Path) -> IoFuture<LockAttempt> {
        let (place, path) = (self.roots.place(path), path.to_owned());
        let roots = Arc::clone(&self.roots);
        self.pool.run(call, Sort::Transfer, move || {
            lock::try_lock(&place, path, roots).map_err(begun)
        })
    }

    fn space(&self, call: Call, path: &Path) -> IoFuture<Space> {
        let place = self.roots.place(path);
        self.pool.run(call, Sort::Transfer, move || {
            let directory = place.open_dir().map_err(begun)?;
            let found = retry_on_intr(|| rustix::fs::fstatvfs(&directory)).map_err(begun)?;
            Ok(Space {
                total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
                available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            })
        })
    }
}

fn list_dir(place: &Place) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::new(place.open_dir()?)? {
        let entry = entry?;
        // Our own names are ASCII; what is not UTF-8 is foreign, and its name is only ever shown.
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn list_files(place: &Place) -> IoResult<Vec<(String, u64)>> {
    let directory = place.open_dir().map_err(begun)?;
    let mut found = Vec::new();
    for name in list_dir(place).map_err(begun)? {
        match retry_on_intr(|| rustix::fs::statat(&directory, name.as_str(), AtFlags::empty())) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                found.push((name, u64::try_from(stat.st_size).unwrap_or_default()));
            }
            Ok(_) => {}
            Err(errno) => {
                let error = begun(errno);
                if !error.was_attempted() {
                    return Err(error);
                }
            }
        }
    }
    Ok(found)
}
