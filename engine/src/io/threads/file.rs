//! One open file of the thread pool.
//!
//! Owns: [`ThreadFile`], each operation of which is one system call.
//! Refuses: loops over short transfers (`io::exact` has them).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::pool::{Lane, Pool};
use crate::buffer::Buffer;
use crate::io::{Call, File, IoFuture};

/// Slices one system call takes (`IOV_MAX` of Linux); more are written by the caller's next call.
const SLICES_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct ThreadFile {
    descriptor: Arc<OwnedFd>,
    pool: Arc<Pool>,
}

impl ThreadFile {
    pub(super) fn new(descriptor: OwnedFd, pool: Arc<Pool>) -> Self {
        Self {
            descriptor: Arc::new(descriptor),
            pool,
        }
    }

    fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        operation: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> IoFuture<T> {
        let descriptor = Arc::clone(&self.descriptor);
        self.pool.run(lane, move || operation(&descriptor))
    }
}

impl Drop for ThreadFile {
    fn drop(&mut self) {
        // Closing a removed file frees its space, which takes long for a large one: not on an async worker.
        // Where the pool cannot take it in, it is closed here.
        drop(self.run(Lane::Namespace, |_| Ok(())));
    }
}

impl File for ThreadFile {
    fn read_at(&self, _: Call, offset: u64, mut buffer: Buffer) -> IoFuture<(Buffer, usize)> {
        self.run(Lane::Transfer, move |descriptor| {
            let count = retry_on_intr(|| rustix::io::pread(descriptor, buffer.free_mut(), offset))?;
            buffer.advance(count);
            Ok((buffer, count))
        })
    }

    fn read_cached(&self, _: Call, offset: u64, buffer: &mut Buffer) -> io::Result<usize> {
        let found = retry_on_intr(|| {
            let slices = &mut [IoSliceMut::new(buffer.free_mut())];
            rustix::io::preadv2(&*self.descriptor, slices, offset, ReadWriteFlags::NOWAIT)
        });
        match found {
            Ok(count) => {
                buffer.advance(count);
                Ok(count)
            }
            // A file system without this flag is one where nothing is known to be resident.
            Err(Errno::AGAIN | Errno::OPNOTSUPP) => Err(io::ErrorKind::WouldBlock.into()),
            Err(refused) => Err(refused.into()),
        }
    }

    fn write_at(&self, _: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        self.run(Lane::Transfer, move |descriptor| {
            let vectors: Vec<IoSlice<'_>> = slices
                .iter()
                .take(SLICES_MAX)
                .map(|slice| IoSlice::new(slice))
                .collect();
            Ok(retry_on_intr(|| {
                rustix::io::pwritev(descriptor, &vectors, offset)
            })?)
        })
    }

    fn sync_data(&self, _: Call) -> IoFuture<()> {
        self.run(Lane::Namespace, |descriptor| {
            Ok(rustix::fs::fdatasync(descriptor)?)
        })
    }

    fn start_writeback(&self, _: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.run(Lane::Transfer, move |descriptor| {
            start_writeback(descriptor, offset, length)
        })
    }

    fn allocate(&self, _: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.run(Lane::Namespace, move |descriptor| {
            let flags = FallocateFlags::empty();
            Ok(retry_on_intr(|| {
                rustix::fs::fallocate(descriptor, flags, offset, length)
            })?)
        })
    }

    fn set_len(&self, _: Call, length: u64) -> IoFuture<()> {
        self.run(Lane::Namespace, move |descriptor| {
            Ok(retry_on_intr(|| rustix::fs::ftruncate(descriptor, length))?)
        })
    }

    fn len(&self, _: Call) -> IoFuture<u64> {
        self.run(Lane::Transfer, length)
    }
}

/// Size of an open file in bytes.
pub(super) fn length(descriptor: &OwnedFd) -> io::Result<u64> {
    let size = retry_on_intr(|| rustix::fs::fstat(descriptor))?.st_size;
    u64::try_from(size).map_err(|negative| io::Error::new(io::ErrorKind::InvalidData, negative))
}

/// `sync_file_range`, which rustix has no call for. Where the file system does not know it, nothing is
/// lost: it is a hint.
fn start_writeback(descriptor: &OwnedFd, offset: u64, length: u64) -> io::Result<()> {
    let invalid = |wide| io::Error::new(io::ErrorKind::InvalidInput, wide);
    let offset = i64::try_from(offset).map_err(invalid)?;
    let length = i64::try_from(length).map_err(invalid)?;
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    #[expect(unsafe_code, reason = "no safe wrapper exists for this system call")]
    // SAFETY: takes only numbers; the descriptor is open as long as `descriptor` is borrowed.
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
