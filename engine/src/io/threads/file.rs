//! One open file of the thread pool.
//!
//! Owns: [`ThreadFile`], each operation of which is one system call. Refuses: loops over short transfers (`io::exact`
//! has them).

use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::errno::{operation_error, sync_error};
use super::pool::{Blocking, Pool};
use super::uncached::Uncached;
use crate::buffer::Buffer;
use crate::io::{Call, Dir, File, IoFuture, IoResult, Residency};

/// Most slices of one system call (`IOV_MAX` of Linux). The caller's next call writes the rest.
const SLICES_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct ThreadFile {
    descriptor: Arc<OwnedFd>,
    pool: Arc<Pool>,
    /// Set if reads leave the page cache as it is.
    uncached: Option<Arc<Uncached>>,
}

impl ThreadFile {
    pub(super) fn new(descriptor: OwnedFd, pool: Arc<Pool>) -> Self {
        Self {
            descriptor: Arc::new(descriptor),
            pool,
            uncached: None,
        }
    }

    /// Makes a file whose reads leave the page cache as it is; `direct` is whether it was opened for direct I/O.
    pub(super) fn uncached(descriptor: OwnedFd, pool: Arc<Pool>, direct: bool) -> Self {
        let uncached = Some(Arc::new(Uncached::new(&descriptor, direct)));
        Self {
            descriptor: Arc::new(descriptor),
            pool,
            uncached,
        }
    }

    fn run<T: Send + 'static>(
        &self,
        call: Call,
        blocking: Blocking,
        operation: impl FnOnce(&OwnedFd) -> IoResult<T> + Send + 'static,
    ) -> IoFuture<T> {
        let descriptor = Arc::clone(&self.descriptor);
        self.pool
            .run(call, blocking, move || operation(&descriptor))
    }
}

impl Drop for ThreadFile {
    fn drop(&mut self) {
        self.pool.close(Arc::clone(&self.descriptor));
    }
}

impl File for ThreadFile {
    fn read_at(&self, call: Call, offset: u64, mut buffer: Buffer) -> IoFuture<(Buffer, usize)> {
        let uncached = self.uncached.clone();
        self.run(call, Blocking::Transfer, move |descriptor| {
            let count = match uncached {
                Some(uncached) => uncached.read(descriptor, offset, &mut buffer)?,
                None => retry_on_intr(|| rustix::io::pread(descriptor, buffer.free_mut(), offset))
                    .map_err(operation_error)?,
            };
            buffer.advance(count);
            Ok((buffer, count))
        })
    }

    fn read_cached(&self, _: Call, offset: u64, buffer: &mut Buffer) -> IoResult<usize> {
        let found = retry_on_intr(|| {
            let slices = &mut [IoSliceMut::new(buffer.free_mut())];
            rustix::io::preadv2(&*self.descriptor, slices, offset, ReadWriteFlags::NOWAIT)
        });
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

    fn write_at(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        self.run(call, Blocking::Transfer, move |descriptor| {
            write(descriptor, offset, &slices)
        })
    }

    fn write_and_sync(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        self.run(call, Blocking::Sync, move |descriptor| {
            let whole: usize = slices.iter().map(Bytes::len).sum();
            let count = write(descriptor, offset, &slices)?;
            if count == whole {
                rustix::fs::fdatasync(descriptor).map_err(sync_error)?;
            }
            Ok(count)
        })
    }

    fn sync_data(&self, call: Call) -> IoFuture<()> {
        self.run(call, Blocking::Sync, |descriptor| {
            rustix::fs::fdatasync(descriptor).map_err(sync_error)
        })
    }

    fn start_writeback(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.run(call, Blocking::Transfer, move |descriptor| {
            let flags = libc::SYNC_FILE_RANGE_WRITE;
            Ok(sync_file_range(descriptor, offset, length, flags)?)
        })
    }

    fn write_back(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.run(call, Blocking::Transfer, move |descriptor| {
            let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER;
            Ok(sync_file_range(descriptor, offset, length, flags)?)
        })
    }

    fn advise(&self, call: Call, offset: u64, length: u64, residency: Residency) -> IoFuture<()> {
        self.run(call, Blocking::Transfer, move |descriptor| {
            let advice = match residency {
                Residency::Wanted => Advice::WillNeed,
                Residency::Done => Advice::DontNeed,
            };
            let Some(length) = NonZeroU64::new(length) else {
                return Ok(());
            };
            rustix::fs::fadvise(descriptor, offset, Some(length), advice).map_err(operation_error)
        })
    }

    fn allocate(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.run(call, Blocking::Sync, move |descriptor| {
            let flags = FallocateFlags::empty();
            retry_on_intr(|| rustix::fs::fallocate(descriptor, flags, offset, length))
                .map_err(operation_error)
        })
    }

    fn set_len(&self, call: Call, length: u64) -> IoFuture<()> {
        self.run(call, Blocking::Sync, move |descriptor| {
            retry_on_intr(|| rustix::fs::ftruncate(descriptor, length)).map_err(operation_error)
        })
    }

    fn len(&self, call: Call) -> IoFuture<u64> {
        self.run(call, Blocking::Transfer, |descriptor| {
            Ok(length(descriptor)?)
        })
    }
}

/// Writes some of the slices. A write that would exceed the limit on file size is not begun, because the kernel would
/// write the part that fits and leave half a frame.
fn write(descriptor: &OwnedFd, offset: u64, slices: &[Bytes]) -> IoResult<usize> {
    let end = slices
        .iter()
        .fold(offset, |end, slice| end + slice.len() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
    if limit.current.is_some_and(|largest| end > largest) {
        return Err(operation_error(Errno::FBIG));
    }
    let vectors: Vec<IoSlice<'_>> = slices
        .iter()
        .take(SLICES_MAX)
        .map(|slice| IoSlice::new(slice))
        .collect();
    retry_on_intr(|| rustix::io::pwritev(descriptor, &vectors, offset)).map_err(operation_error)
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
