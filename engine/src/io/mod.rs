//! The seam: everything the engine asks of the outside world.
//!
//! Owns: the traits [`Io`], [`File`], [`Dir`], [`Clock`], [`Spawn`], [`Rng`] and their bundle [`Env`].
//! Refuses: any knowledge of records, frames or digests.
//!
//! Invariants every implementation keeps:
//! - Every operation carries a [`Call`]: what it is for and who asks. It never changes what the operation does.
//! - A buffer handed to an operation belongs to the implementation until its future resolves, and
//!   an operation whose future is dropped still runs to its end and keeps its buffers until then.
//! - `read_at` and `write_at` may move fewer bytes than asked; [`exact`] holds the only loops.
//! - `sync_data` covers every `write_at`, `allocate` and `set_len` whose future resolved before the call, file
//!   size included; `write_and_sync` covers its own bytes too; [`Dir::sync`] covers the entries of one directory. Nothing else makes
//!   anything durable.
//! - An error says whether the operation was attempted: [`IoError::NotAttempted`] leaves the disk as it was.

mod call;
mod directory;
pub mod exact;
mod free_memory;
mod native;
mod outcome;
#[cfg(test)]
pub(crate) mod test_env;
pub mod threads;

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::sync::oneshot;

pub use self::call::{Call, Class};
pub use self::directory::Directory;
pub use self::free_memory::release_free_memory;
pub use self::native::native;
pub use self::outcome::{IoError, IoResult};
pub use self::threads::workers::Workers;
pub use crate::buffer::Buffer;

/// What every operation of the seam returns: a future that owns all it needs.
pub type IoFuture<T> = Pin<Box<dyn Future<Output = IoResult<T>> + Send + 'static>>;

/// A future without a result, for tasks and timers.
pub type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// An open file, shared; closed when the last handle drops.
pub type FileRef = Arc<dyn File>;

/// An open directory, shared; closed when the last handle drops.
pub type DirRef = Arc<dyn Dir>;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, reads only.
    Read,
    /// Existing file, reads and writes.
    Write,
    /// New file, reads and writes; `AlreadyExists` if the name is taken.
    CreateNew,
}

/// What a reader expects of a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// It will be read soon.
    Wanted,
    /// It will not be read again soon: its memory is better used for something else.
    Done,
}

/// Operations of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassCount {
    /// Which.
    pub class: Class,
    /// All that ended.
    pub operations: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Those of them that were not attempted.
    pub not_attempted: u64,
}

/// Space of the file system that holds the store, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total_bytes: u64,
    /// What an unprivileged writer may still use.
    pub available_bytes: u64,
}

/// Result of trying to take a lock.
#[derive(Debug)]
pub enum LockAttempt {
    /// Ours until the guard drops.
    Held(Box<dyn LockGuard>),
    /// Another process holds it; its pid where it is known.
    Taken(Option<u32>),
}

/// Releases a lock when dropped.
pub trait LockGuard: Send + Sync + Debug {}

/// The name space of a disk.
pub trait Io: Send + Sync + Debug {
    /// Name of this backend for logs and `serve`'s first lines, e.g. `threads`.
    fn backend(&self) -> &'static str;
    /// How many operations there were since the backend was made, by class; nothing where that is not counted.
    fn counts(&self) -> Vec<ClassCount> {
        Vec::new()
    }
    /// Creates one directory; its parent must exist. `AlreadyExists` if it is there.
    fn create_dir(&self, call: Call, path: &Path) -> IoFuture<()>;
    /// Names (not paths) of the entries of a directory, in no order.
    fn list_dir(&self, call: Call, path: &Path) -> IoFuture<Vec<String>>;
    /// Names and sizes in bytes of the regular files in a directory, in no order. A name that leads to no file that can be looked at
    /// is left out.
    fn list_files(&self, call: Call, path: &Path) -> IoFuture<Vec<(String, u64)>>;
    /// Opens a directory, so that it can be synced as often as needed without another descriptor.
    fn open_dir(&self, call: Call, path: &Path) -> IoFuture<DirRef>;
    /// Opens a file.
    fn open(&self, call: Call, path: &Path, mode: OpenMode) -> IoFuture<FileRef>;
    /// Removes a file's name; open handles stay valid.
    fn unlink(&self, call: Call, path: &Path) -> IoFuture<()>;
    /// Locks what is at `path`, a directory or a file, for this process alone. It is not changed. While a directory is
    /// held, names below it are resolved in it, wherever it is moved.
    fn lock(&self, call: Call, path: &Path) -> IoFuture<LockAttempt>;
    /// Space on the file system that holds `path`.
    fn space(&self, call: Call, path: &Path) -> IoFuture<Space>;
    /// Resolves once the files are closed whose last handle was dropped before. A file that an operation still uses is
    /// closed at the end of that.
    fn closed(&self) -> TaskFuture {
        Box::pin(std::future::ready(()))
    }
}

/// One open file.
pub trait File: Send + Sync + Debug {
    /// Reads at `offset` into the free part of `buffer` (up to its limit) and returns it with the count of
    /// bytes added, which may be short; 0 means end of file.
    fn read_at(&self, call: Call, offset: u64, buffer: Buffer) -> IoFuture<(Buffer, usize)>;
    /// As `read_at`, at once and only from memory: not attempted if the first byte is not resident. May
    /// return fewer bytes than are resident. Never waits for the disk.
    fn read_cached(&self, call: Call, offset: u64, buffer: &mut Buffer) -> IoResult<usize>;
    /// Writes the slices one after the other at `offset`; returns the count written, which may be short.
    fn write_at(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize>;
    /// As `write_at`; where that took all of the bytes, makes data and size durable in the same operation. A count below their number
    /// means that nothing was synced.
    fn write_and_sync(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize>;
    /// Makes data and size durable.
    fn sync_data(&self, call: Call) -> IoFuture<()>;
    /// Starts writing dirty pages of the range to the disk without waiting; a hint, no promise.
    fn start_writeback(&self, call: Call, offset: u64, length: u64) -> IoFuture<()>;
    /// Writes dirty pages of the range to the device and waits until they are there. Makes nothing durable, but bounds what a sync has
    /// to wait for. A failure is one of the data: the same sync may not report it again.
    fn write_back(&self, call: Call, offset: u64, length: u64) -> IoFuture<()>;
    /// Says whether bytes of the range will be read soon or not again; a hint, no promise.
    fn advise(&self, call: Call, offset: u64, length: u64, residency: Residency) -> IoFuture<()>;
    /// Reserves space for the range and grows the file to its end; new bytes read as zero.
    fn allocate(&self, call: Call, offset: u64, length: u64) -> IoFuture<()>;
    /// Sets the size.
    fn set_len(&self, call: Call, length: u64) -> IoFuture<()>;
    /// The current size in bytes.
    fn len(&self, call: Call) -> IoFuture<u64>;
}

/// One open directory.
pub trait Dir: Send + Sync + Debug {
    /// Makes its entries durable (creations, removals).
    fn sync(&self, call: Call) -> IoFuture<()>;
}

/// Time.
pub trait Clock: Send + Sync + Debug {
    /// Monotonic time since some fixed point of this run.
    fn monotonic(&self) -> Duration;
    /// Milliseconds since 1970-01-01 UTC; may jump, orders nothing.
    fn wall_unix_ms(&self) -> u64;
    /// Resolves after `duration`.
    fn sleep(&self, duration: Duration) -> TaskFuture;
}

/// Where tasks and computations run.
pub trait Spawn: Send + Sync + Debug {
    /// Runs a task until it ends; `name` is for logs.
    fn spawn(&self, name: &'static str, task: TaskFuture);
    /// Runs a computation of at most a few milliseconds off the async workers.
    fn compute(&self, job: Box<dyn FnOnce() + Send>);
}

/// Randomness: upload ids, nonces, the store's secret.
pub trait Rng: Send + Sync + Debug {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// All an engine is given. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Env {
    /// The disk.
    pub io: Arc<dyn Io>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Tasks and computations.
    pub spawn: Arc<dyn Spawn>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
}

impl Env {
    /// Runs `job` off the async workers and resolves to its result; `None` if the job never ran or panicked.
    pub async fn compute<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        self.spawn.compute(Box::new(move || {
            // The caller may have dropped its future.
            drop(done.send(job()));
        }));
        result.await.ok()
    }
}
