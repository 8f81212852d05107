//! The seam: everything that the engine needs of the outside world.
//!
//! Owns: the traits [`Io`], [`File`], [`Dir`], [`Clock`], [`Spawn`], [`Rng`] and their bundle [`Env`]. Refuses: any
//! knowledge of records, frames or digests.
//!
//! Invariants of every implementation:
//! - Every operation carries a [`Call`]: its purpose and its call site. It never changes what the operation does.
//! - A buffer passed to an operation belongs to the implementation until its future resolves. An operation whose future
//!   is dropped still runs to its end and keeps its buffers until then; but a read may not be begun any more.
//! - `read_at` and `write_at` may move fewer bytes than asked; [`exact`] has the only loops.
//! - `sync_data` covers every `write_at`, `allocate` and `set_len` whose future resolved before the call, file size
//!   included. `write_and_sync` covers its own bytes, too. [`Dir::sync`] covers the entries of one directory. Nothing
//!   else makes anything durable.
//! - An error says whether the operation was attempted: [`IoError::NotAttempted`] leaves the disk as it was.

mod call;
mod directory;
mod errno;
pub mod exact;
mod free_memory;
mod mapped;
mod native;
mod outcome;
mod page_cache;
#[cfg(test)]
pub(crate) mod test_env;
pub mod threads;
pub mod uring;

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::sync::oneshot;
use crate::vocabulary::ClientId;

pub use self::call::{Call, Class};
pub use self::directory::Directory;
pub use self::free_memory::release_free_memory;
pub use self::mapped::FaultWatch;
pub use self::native::{Backend, NotStarted, Started, native};
pub use self::outcome::{IoError, IoResult};
pub use self::page_cache::page_cache_bytes;
pub use self::threads::time_slice::shorten_time_slice;
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
    /// Existing file, reads only, without the kernel's read-ahead (`POSIX_FADV_RANDOM`).
    ReadRandom,
    /// Existing file, reads only: of what the drive has, if the file system allows it, and without a change to what is
    /// in the page cache. Offsets and the room of buffers are multiples of [`UNCACHED_ALIGN_BYTES`]. So is the count of
    /// a short read, except at the end of the file.
    ReadUncached,
    /// Existing file, reads and writes.
    Write,
    /// New file, reads and writes, without the kernel's read-ahead; `AlreadyExists` if the name is taken.
    CreateNew,
}

/// What offsets and lengths of reads past the page cache are multiples of, in bytes.
pub const UNCACHED_ALIGN_BYTES: u64 = 4096;

/// The expected use of a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// The range will be read soon.
    Wanted,
    /// The range will not be read again soon, and its memory may be reused.
    Done,
}

/// The number of operations of one class that one backend served, by result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassCount {
    /// The class.
    pub class: Class,
    /// The backend that served them, e.g. `threads`.
    pub backend: &'static str,
    /// Operations that ended.
    pub operations: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were not attempted.
    pub not_attempted: u64,
}

/// Space of the file system that holds the store, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total_bytes: u64,
    /// Bytes that an unprivileged writer may still use.
    pub available_bytes: u64,
}

/// The result of an attempt to take a lock.
#[derive(Debug)]
pub enum LockAttempt {
    /// The lock is held until the guard drops.
    Held(Box<dyn LockGuard>),
    /// Another process holds the lock; its pid where known.
    Taken(Option<u32>),
}

/// Releases a lock when dropped.
pub trait LockGuard: Send + Sync + Debug {}

/// The name space of a disk.
pub trait Io: Send + Sync + Debug {
    /// Returns the name of this backend for logs, e.g. `threads`.
    fn backend(&self) -> &'static str;
    /// Returns the number of operations since the backend was created, by class and by the backend that served
    /// them. Empty where they are not counted.
    fn counts(&self) -> Vec<ClassCount> {
        Vec::new()
    }
    /// Creates one directory, whose parent must exist. `AlreadyExists` if the name is taken.
    fn create_dir(&self, call: Call, path: &Path) -> IoFuture<()>;
    /// Lists the names (not paths) of the entries of a directory, in no order.
    fn list_dir(&self, call: Call, path: &Path) -> IoFuture<Vec<String>>;
    /// Lists the names and sizes in bytes of the regular files in a directory, in no order. A name that leads to no
    /// file that can be examined is left out.
    fn list_files(&self, call: Call, path: &Path) -> IoFuture<Vec<(String, u64)>>;
    /// Opens a directory, so that it can be synced repeatedly without another descriptor.
    fn open_dir(&self, call: Call, path: &Path) -> IoFuture<DirRef>;
    /// Opens a file.
    fn open(&self, call: Call, path: &Path, mode: OpenMode) -> IoFuture<FileRef>;
    /// Removes a file's name; open handles stay valid.
    fn unlink(&self, call: Call, path: &Path) -> IoFuture<()>;
    /// Locks the directory or file at `path` for this process alone, and does not change it. While a directory is
    /// locked, names below it are resolved in it, wherever it is moved.
    fn lock(&self, call: Call, path: &Path) -> IoFuture<LockAttempt>;
    /// Returns the space of the file system that holds `path`.
    fn space(&self, call: Call, path: &Path) -> IoFuture<Space>;
    /// Resolves when all files are closed whose last handle was dropped before the call. A file that an operation still
    /// uses is closed at the end of that operation.
    fn closed(&self) -> TaskFuture {
        Box::pin(std::future::ready(()))
    }
}

/// One open file.
pub trait File: Send + Sync + Debug {
    /// Reads at `offset` into the free part of `buffer`, up to its limit. Returns the buffer and the count of bytes
    /// added, which may be short; 0 means end of file.
    fn read_at(&self, call: Call, offset: u64, buffer: Buffer) -> IoFuture<(Buffer, usize)>;
    /// Reads as `read_at` does, immediately and only from memory. Not attempted if the first byte is not resident. May
    /// return fewer bytes than are resident. Never waits for the disk.
    fn read_cached(&self, call: Call, offset: u64, buffer: &mut Buffer) -> IoResult<usize>;
    /// Returns a handle of the same file whose reads leave in the page cache only what was there before. `None` if the
    /// backend has none; where the kernel cannot do that, what they bring in stays.
    fn dontcache(&self) -> Option<FileRef> {
        None
    }
    /// Maps `length` bytes from `offset`, immediately. `None` if they are not all in memory, or if the backend or the
    /// file system maps no files. Waits for the disk only if a page is evicted meanwhile.
    fn map_cached(&self, _call: Call, _offset: u64, _length: usize) -> Option<Arc<dyn Mapping>> {
        None
    }
    /// Writes the slices one after the other at `offset`; returns the count written, which may be short.
    fn write_at(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize>;
    /// Writes as `write_at` does, and makes data and size durable if all bytes were written. A lower count means that
    /// nothing was synced.
    fn write_and_sync(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize>;
    /// Makes data and size durable.
    fn sync_data(&self, call: Call) -> IoFuture<()>;
    /// Writes dirty pages of the range to the device and waits until they are there. Makes nothing durable, but bounds
    /// what a sync has to wait for. An error must be treated as a failed write: a later sync may not report it again.
    fn write_back(&self, call: Call, offset: u64, length: u64) -> IoFuture<()>;
    /// Advises whether the range will be read soon or not again. A hint, no promise.
    fn advise(&self, call: Call, offset: u64, length: u64, residency: Residency) -> IoFuture<()>;
    /// Reserves space for the range and grows the file to its end; new bytes read as zero.
    fn allocate(&self, call: Call, offset: u64, length: u64) -> IoFuture<()>;
    /// Sets the size.
    fn set_len(&self, call: Call, length: u64) -> IoFuture<()>;
    /// Returns the current size in bytes.
    fn len(&self, call: Call) -> IoFuture<u64>;
}

/// A range of a file that is used where the page cache has it, without a copy.
///
/// A page that the kernel evicts is read from the drive at its next use. The [`FaultWatch`] of the thread that uses it
/// notices that.
pub trait Mapping: Send + Sync + Debug {
    /// Returns the bytes. Those that the drive cannot read are zeros.
    fn bytes(&self) -> &[u8];
    /// Returns whether all of it is in memory.
    fn is_resident(&self) -> bool;
    /// Reads what is not in memory.
    fn load(self: Arc<Self>, call: Call) -> IoFuture<()>;
}

/// One open directory.
pub trait Dir: Send + Sync + Debug {
    /// Makes its entries durable (creations, removals).
    fn sync(&self, call: Call) -> IoFuture<()>;
}

/// Clocks and timers.
pub trait Clock: Send + Sync + Debug {
    /// Returns the monotonic time since some fixed point of this run.
    fn monotonic(&self) -> Duration;
    /// Returns the monotonic time, or one a little later (a quarter of a second) if that costs less.
    fn monotonic_coarse(&self) -> Duration {
        self.monotonic()
    }
    /// Returns the milliseconds since 1970-01-01 UTC. They may jump, so they order nothing.
    fn wall_unix_ms(&self) -> u64;
    /// Resolves after `duration`.
    fn sleep(&self, duration: Duration) -> TaskFuture;
}

/// Runs tasks and computations.
pub trait Spawn: Send + Sync + Debug {
    /// Runs a task until it ends; `name` is for logs.
    fn spawn(&self, name: &'static str, task: TaskFuture);
    /// Runs a computation of at most a few milliseconds off the async workers.
    fn compute(&self, job: Box<dyn FnOnce() + Send>);
    /// The same for hashing the bytes of clients, which may take all processors: what is short should go first.
    /// Clients take turns.
    fn hash(&self, _client: ClientId, job: Box<dyn FnOnce() + Send>) {
        self.compute(job);
    }
}

/// Source of randomness: for upload ids, nonces and the store's secret.
pub trait Rng: Send + Sync + Debug {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// Everything that an engine gets from its host. Cheap to clone.
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
        resolve(job, |job| self.spawn.compute(job)).await
    }

    /// The same for a job that hashes bytes of `client`.
    pub async fn hash<T: Send + 'static>(
        &self,
        client: ClientId,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        resolve(job, |job| self.spawn.hash(client, job)).await
    }
}

async fn resolve<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
    run: impl FnOnce(Box<dyn FnOnce() + Send>),
) -> Option<T> {
    let (done, result) = oneshot::channel();
    run(Box::new(move || {
        // The caller may have dropped its future.
        drop(done.send(job()));
    }));
    result.await.ok()
}
