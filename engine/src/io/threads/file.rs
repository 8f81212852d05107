//! One open file of the thread pool.
//!
//! Owns: [`ThreadFile`], each operation of which is one system call; and [`Handle`], with the reads, writes and syncs
//! that a ring may take over. Refuses: loops over short transfers (`io::exact` has them).

use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::closing::Unused;
use super::pool::{Blocking, Pool};
use super::uncached::Uncached;
use crate::buffer::Buffer;
use crate::io::errno::{operation_error, sync_error};
use crate::io::mapped::{FileWindows, MappedWindow};
use crate::io::{Call, Dir, File, FileRef, IoFuture, IoResult, Mapping, Residency};

/// Most slices of one system call (`IOV_MAX` of Linux). The caller's next call writes the rest.
pub(in crate::io) const SLICES_MAX: usize = 1024;
/// Drops pages that a read, or read-ahead for it, brings into the page cache (`preadv2(2)`, Linux 6.14).
const DONTCACHE: ReadWriteFlags =
    ReadWriteFlags::from_bits_retain(libc::RWF_DONTCACHE.cast_unsigned());

/// A descriptor and how it is read, shared with every operation on it: an operation that is under way keeps it open.
#[derive(Debug, Clone)]
pub(in crate::io) struct Handle {
    descriptor: Arc<OwnedFd>,
    /// Set if reads leave the page cache as it is.
    uncached: Option<Arc<Uncached>>,
    /// Whether pages that its reads bring into the page cache are dropped.
    is_dontcache: bool,
}

impl Handle {
    /// Makes the handle of an open file that is read through the page cache.
    pub(in crate::io) fn new(descriptor: OwnedFd) -> Self {
        Self {
            descriptor: Arc::new(descriptor),
            uncached: None,
            is_dontcache: false,
        }
    }

    /// Returns the descriptor.
    pub(in crate::io) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// Returns the descriptor if this is the last handle.
    pub(in crate::io) fn into_descriptor(self) -> Option<OwnedFd> {
        Arc::into_inner(self.descriptor)
    }

    /// Returns how reads reach the drive.
    pub(in crate::io) fn access(&self) -> Access {
        match &self.uncached {
            None => Access::Cached,
            Some(uncached) if uncached.is_direct() => Access::Direct,
            Some(_) => Access::Dropping,
        }
    }

    /// Reads once.
    pub(in crate::io) fn read(&self, offset: u64, mut buffer: Buffer) -> IoResult<(Buffer, usize)> {
        let descriptor = &*self.descriptor;
        let count = match &self.uncached {
            Some(uncached) => uncached.read(descriptor, offset, &mut buffer)?,
            None => self
                .read_with(ReadWriteFlags::empty(), offset, &mut buffer)
                .map_err(operation_error)?,
        };
        buffer.advance(count);
        Ok((buffer, count))
    }

    /// Reads once through the page cache, with these flags and those of the handle; returns the count of bytes.
    fn read_with(
        &self,
        flags: ReadWriteFlags,
        offset: u64,
        buffer: &mut Buffer,
    ) -> rustix::io::Result<usize> {
        let mut read = |flags: ReadWriteFlags| {
            retry_on_intr(|| {
                if flags.is_empty() {
                    return rustix::io::pread(&self.descriptor, buffer.free_mut(), offset);
                }
                let slices = &mut [IoSliceMut::new(buffer.free_mut())];
                rustix::io::preadv2(&self.descriptor, slices, offset, flags)
            })
        };
        if self.is_dontcache {
            match read(flags | DONTCACHE) {
                // The kernel or the file system does not have it.
                Err(Errno::OPNOTSUPP) => {}
                read => return read,
            }
        }
        read(flags)
    }

    /// Writes once.
    pub(in crate::io) fn write(&self, offset: u64, slices: &[Bytes]) -> IoResult<usize> {
        if exceeds_file_size(offset, slices) {
            return Err(operation_error(Errno::FBIG));
        }
        let vectors: Vec<IoSlice<'_>> = slices
            .iter()
            .take(SLICES_MAX)
            .map(|slice| IoSlice::new(slice))
            .collect();
        retry_on_intr(|| rustix::io::pwritev(&self.descriptor, &vectors, offset))
            .map_err(operation_error)
    }

    /// Writes once, and syncs if all bytes were written.
    pub(in crate::io) fn write_and_sync(&self, offset: u64, slices: &[Bytes]) -> IoResult<usize> {
        let whole: usize = slices.iter().map(Bytes::len).sum();
        let count = self.write(offset, slices)?;
        if count == whole {
            self.sync()?;
        }
        Ok(count)
    }

    /// Makes data and size durable.
    pub(in crate::io) fn sync(&self) -> IoResult<()> {
        rustix::fs::fdatasync(&self.descriptor).map_err(sync_error)
    }
}

/// How reads of a file reach the drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::io) enum Access {
    /// Through the page cache.
    Cached,
    /// Past the page cache.
    Direct,
    /// Through the page cache, from which the pages are dropped again.
    Dropping,
}

/// Returns whether a write would exceed the limit on file size. It is not begun, because the kernel would write the
/// part that fits and leave half a frame.
pub(in crate::io) fn exceeds_file_size(offset: u64, slices: &[Bytes]) -> bool {
    let end = slices
        .iter()
        .fold(offset, |end, slice| end + slice.len() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
    limit.current.is_some_and(|largest| end > largest)
}

/// An open file.
#[derive(Debug)]
pub(in crate::io) struct ThreadFile {
    handle: Handle,
    pool: Arc<Pool>,
    /// Set once a part was mapped.
    windows: OnceLock<Arc<FileWindows>>,
}

impl ThreadFile {
    pub(in crate::io) fn new(descriptor: OwnedFd, pool: Arc<Pool>) -> Self {
        let handle = Handle::new(descriptor);
        Self {
            handle,
            pool,
            windows: OnceLock::new(),
        }
    }

    /// Makes a file whose reads leave the page cache as it is; `direct` is whether it was opened for direct I/O.
    pub(super) fn uncached(descriptor: OwnedFd, pool: Arc<Pool>, direct: bool) -> Self {
        let uncached = Some(Arc::new(Uncached::new(&descriptor, direct)));
        let handle = Handle {
            descriptor: Arc::new(descriptor),
            uncached,
            is_dontcache: false,
        };
        Self {
            handle,
            pool,
            windows: OnceLock::new(),
        }
    }

    /// Returns the handle.
    pub(in crate::io) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn run<T: Send + 'static>(
        &self,
        call: Call,
        blocking: Blocking,
        operation: impl FnOnce(&Handle) -> IoResult<T> + Send + 'static,
    ) -> IoFuture<T> {
        let handle = self.handle.clone();
        self.pool.run(call, blocking, move || operation(&handle))
    }
}

impl Drop for ThreadFile {
    fn drop(&mut self) {
        let (descriptor, windows) = (Arc::clone(&self.handle.descriptor), self.windows.take());
        self.pool.close(Unused::new(descriptor, windows));
    }
}

impl File for ThreadFile {
    fn read_at(&self, call: Call, offset: u64, buffer: Buffer) -> IoFuture<(Buffer, usize)> {
        let handle = self.handle.clone();
        self.pool
            .run_read(call, move || handle.read(offset, buffer))
    }

    fn read_cached(&self, _: Call, offset: u64, buffer: &mut Buffer) -> IoResult<usize> {
        let found = self
            .handle
            .read_with(ReadWriteFlags::NOWAIT, offset, buffer);
        let count = found.map_err(|errno| {
            // A file system without this flag cannot tell whether bytes are resident.
            operation_error(if errno == Errno::OPNOTSUPP {
                Errno::AGAIN
            } else {
                errno
            })
        })?;
        buffer.advance(count);
        Ok(count)
    }

    fn dontcache(&self) -> Option<FileRef> {
        let handle = Handle {
            is_dontcache: true,
            ..self.handle.clone()
        };
        Some(Arc::new(Self {
            handle,
            pool: Arc::clone(&self.pool),
            windows: OnceLock::new(),
        }))
    }

    fn map_cached(&self, call: Call, offset: u64, length: usize) -> Option<Arc<dyn Mapping>> {
        if self.windows.get().is_none() {
            // If another thread was faster, this one is dropped.
            let new = FileWindows::new(self.handle.descriptor())?;
            drop(self.windows.set(Arc::new(new)));
        }
        let (windows, descriptor) = (self.windows.get()?, self.handle.descriptor());
        let window = MappedWindow::new(windows, descriptor, offset, length, &self.pool)?;
        self.pool.count_mapped(call.class);
        Some(Arc::new(window))
    }

    fn write_at(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        self.run(call, Blocking::Transfer, move |handle| {
            handle.write(offset, &slices)
        })
    }

    fn write_and_sync(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        self.run(call, Blocking::Sync, move |handle| {
            handle.write_and_sync(offset, &slices)
        })
    }

    fn sync_data(&self, call: Call) -> IoFuture<()> {
        self.run(call, Blocking::Sync, Handle::sync)
    }

    fn write_back(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.run(call, Blocking::Drive, move |handle| {
            let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER;
            Ok(sync_file_range(handle.descriptor(), offset, length, flags)?)
        })
    }

    fn advise(&self, call: Call, offset: u64, length: u64, residency: Residency) -> IoFuture<()> {
        self.run(call, Blocking::Transfer, move |handle| {
            let advice = match residency {
                Residency::Wanted => Advice::WillNeed,
                Residency::Done => Advice::DontNeed,
            };
            let Some(length) = NonZeroU64::new(length) else {
                return Ok(());
            };
            rustix::fs::fadvise(handle.descriptor(), offset, Some(length), advice)
                .map_err(operation_error)
        })
    }

    fn allocate(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.run(call, Blocking::Sync, move |handle| {
            let flags = FallocateFlags::empty();
            retry_on_intr(|| rustix::fs::fallocate(handle.descriptor(), flags, offset, length))
                .map_err(operation_error)
        })
    }

    fn set_len(&self, call: Call, length: u64) -> IoFuture<()> {
        self.run(call, Blocking::Sync, move |handle| {
            retry_on_intr(|| rustix::fs::ftruncate(handle.descriptor(), length))
                .map_err(operation_error)
        })
    }

    fn len(&self, call: Call) -> IoFuture<u64> {
        self.run(call, Blocking::Transfer, |handle| {
            Ok(length(handle.descriptor())?)
        })
    }
}

/// An open directory.
#[derive(Debug)]
pub(super) struct ThreadDir {
    descriptor: Arc<OwnedFd>,
    pool: Arc<Pool>,
}

impl ThreadDir {
    pub(super) fn new(descriptor: OwnedFd, pool: Arc<Pool>) -> Self {
        let descriptor = Arc::new(descriptor);
        Self { descriptor, pool }
    }
}

impl Dir for ThreadDir {
    fn sync(&self, call: Call) -> IoFuture<()> {
        let descriptor = Arc::clone(&self.descriptor);
        self.pool.run(call, Blocking::Sync, move || {
            rustix::fs::fsync(&descriptor).map_err(sync_error)
        })
    }
}

/// Returns the size of an open file in bytes.
pub(super) fn length(descriptor: &OwnedFd) -> io::Result<u64> {
    let size = retry_on_intr(|| rustix::fs::fstat(descriptor))?.st_size;
    u64::try_from(size).map_err(|negative| io::Error::new(io::ErrorKind::InvalidData, negative))
}

/// Keeps the kernel from reading more than it is asked for. If it refuses, reads have the same result.
pub(super) fn disable_read_ahead(descriptor: &OwnedFd) {
    let advised = rustix::fs::fadvise(descriptor, 0, None, Advice::Random);
    advised.unwrap_or_default();
}

/// Calls `sync_file_range`, which rustix does not have. A file system that does not support it is no error, because the
/// call makes nothing durable.
fn sync_file_range(
    descriptor: &OwnedFd,
    offset: u64,
    length: u64,
    flags: libc::c_uint,
) -> io::Result<()> {
    let invalid = |wide| io::Error::new(io::ErrorKind::InvalidInput, wide);
    let offset = i64::try_from(offset).map_err(invalid)?;
    let length = i64::try_from(length).map_err(invalid)?;
    #[expect(unsafe_code, reason = "no safe wrapper exists for this system call")]
    // SAFETY: it takes only numbers; the descriptor is open as long as `descriptor` is borrowed.
    let result = unsafe { libc::sync_file_range(descriptor.as_raw_fd(), offset, length, flags) };
    if result == 0 {
        return Ok(());
    }
    let refused = io::Error::last_os_error();
    match refused.raw_os_error() {
        Some(libc::ESPIPE | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINTR) => Ok(()),
        _ => Err(refused),
    }
}
