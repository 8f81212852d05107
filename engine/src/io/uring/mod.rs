//! The real disk: reads, writes and syncs through `io_uring`, everything else through threads.
//!
//! Owns: [`Uring`], which exists only where a probe succeeded. Refuses: names, directories, locks and space, which
//! [`Threads`] does.
//!
//! Invariants, beside those of the threads:
//! - A buffer, a descriptor and the place of a result belong to a ring until the kernel has ended the operation,
//!   whatever happens to the future.
//! - A ring has bounds of operations and bytes under way (`queue`), and of threads of the kernel.
//! - Rings serve files of ext4, XFS, Btrfs and tmpfs only, on which the tests run. Within the kernel a ring continues a
//!   short transfer by itself, from a position that the file system advances. FUSE does not advance it for direct I/O
//!   (Linux 6.18), and a read of it returned bytes of another place.
//! - What a ring refuses is done by the threads, except a sync that failed. If the kernel forbids rings while the
//!   process runs, they are used no more.

mod file;
mod operation;
mod policy;
mod probe;
mod queue;
mod reactor;
mod ring;
mod rings;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use self::file::UringFile;
pub use self::policy::Table;
pub use self::probe::Unavailable;
use self::rings::Rings;
use super::threads::Threads;
use super::{
    Call, ClassCount, DirRef, FileRef, Io, IoFuture, LockAttempt, OpenMode, Space, TaskFuture,
};

/// The name of this backend.
pub(super) const NAME: &str = "io_uring";

/// The backend `io_uring`. Its rings and threads end when the backend and every file opened through it are dropped.
#[derive(Debug)]
pub struct Uring {
    threads: Threads,
    rings: Arc<Rings>,
}

impl Uring {
    /// Starts the rings, and does real operations on each of them.
    ///
    /// # Errors
    /// `io_uring` does not work here.
    pub fn start(threads: &Threads, table: Table) -> Result<Self, Unavailable> {
        let rings = Arc::new(Rings::start(Arc::clone(threads.pool()), table)?);
        Ok(Self {
            threads: threads.clone(),
            rings,
        })
    }
}

impl Io for Uring {
    fn backend(&self) -> &'static str {
        NAME
    }

    fn counts(&self) -> Vec<ClassCount> {
        let mut counts = self.threads.counts();
        counts.extend(self.rings.counts());
        counts
    }

    fn create_dir(&self, call: Call, path: &Path) -> IoFuture<()> {
        self.threads.create_dir(call, path)
    }

    fn list_dir(&self, call: Call, path: &Path) -> IoFuture<Vec<String>> {
        self.threads.list_dir(call, path)
    }

    fn list_files(&self, call: Call, path: &Path) -> IoFuture<Vec<(String, u64)>> {
        self.threads.list_files(call, path)
    }

    fn open_dir(&self, call: Call, path: &Path) -> IoFuture<DirRef> {
        self.threads.open_dir(call, path)
    }

    fn open(&self, call: Call, path: &Path, mode: OpenMode) -> IoFuture<FileRef> {
        let rings = Arc::clone(&self.rings);
        self.threads.open_as(call, path, mode, |file| {
            let file: FileRef = if file::suits_rings(&file) {
                Arc::new(UringFile::new(file, rings))
            } else {
                Arc::new(file)
            };
            file
        })
    }

    fn unlink(&self, call: Call, path: &Path) -> IoFuture<()> {
        self.threads.unlink(call, path)
    }

    fn lock(&self, call: Call, path: &Path) -> IoFuture<LockAttempt> {
        self.threads.lock(call, path)
    }

    fn space(&self, call: Call, path: &Path) -> IoFuture<Space> {
        self.threads.space(call, path)
    }

    fn closed(&self) -> TaskFuture {
        self.threads.closed()
    }
}
