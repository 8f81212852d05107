//! Reads that leave the page cache as it is.
//!
//! Owns: [`Uncached`], how one file is read. Refuses: files that are written.
//!
//! Direct I/O is the rule: it reads what the drive has, where a read of a cached page would only show that memory is
//! intact. Some file systems do not have it. There the pages that a read brings in are dropped again. Read-ahead is
//! off, so that nothing else comes in with them.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, OFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::file::disable_read_ahead;
use crate::buffer::Buffer;
use crate::io::errno::operation_error;
use crate::io::{IoResult, UNCACHED_ALIGN_BYTES};

/// How a file is read without a change to the page cache.
#[derive(Debug)]
pub(super) struct Uncached {
    /// Whether reads go directly to the drive.
    direct: AtomicBool,
}

impl Uncached {
    /// Describes a file that was opened; `direct` is whether direct I/O was accepted.
    pub(super) fn new(descriptor: &OwnedFd, direct: bool) -> Self {
        if !direct {
            disable_read_ahead(descriptor);
        }
        Self {
            direct: AtomicBool::new(direct),
        }
    }

    /// Returns whether reads go directly to the drive.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Acquire)
    }

    /// Reads at `offset` into the free part of `buffer`; returns the count of bytes.
    pub(super) fn read(
        &self,
        descriptor: &OwnedFd,
        offset: u64,
        buffer: &mut Buffer,
    ) -> IoResult<usize> {
        if self.is_direct() {
            let read = retry_on_intr(|| rustix::io::pread(descriptor, buffer.free_mut(), offset));
            match read {
                // Accepted at the open, rejected at the read.
                Err(Errno::INVAL) => self.give_up_direct(descriptor)?,
                read => return read.map_err(operation_error),
            }
        }
        if let Some(count) = read_resident(descriptor, offset, buffer) {
            return Ok(count);
        }
        let read = retry_on_intr(|| rustix::io::pread(descriptor, buffer.free_mut(), offset));
        let count = read.map_err(operation_error)?;
        if let Some(length) = NonZeroU64::new(count as u64) {
            // A hint; if it fails, some pages stay.
            let dropped = rustix::fs::fadvise(descriptor, offset, Some(length), Advice::DontNeed);
            dropped.unwrap_or_default();
        }
        Ok(count)
    }

    fn give_up_direct(&self, descriptor: &OwnedFd) -> IoResult<()> {
        let flags = rustix::fs::fcntl_getfl(descriptor).map_err(operation_error)?;
        let set = rustix::fs::fcntl_setfl(descriptor, flags - OFlags::DIRECT);
        set.map_err(operation_error)?;
        disable_read_ahead(descriptor);
        self.direct.store(false, Ordering::Release);
        Ok(())
    }
}

/// Reads what is in the page cache, as whole blocks; `None` if the first block is not there.
fn read_resident(descriptor: &OwnedFd, offset: u64, buffer: &mut Buffer) -> Option<usize> {
    let slices = &mut [IoSliceMut::new(buffer.free_mut())];
    let flags = ReadWriteFlags::NOWAIT;
    let found = retry_on_intr(|| rustix::io::preadv2(descriptor, slices, offset, flags));
    let count = found.ok().filter(|count| *count > 0)?;
    let block = usize::try_from(UNCACHED_ALIGN_BYTES).unwrap_or(usize::MAX);
    if count % block == 0 {
        return Some(count);
    }
    // The end of the file, or of what is resident in a page of another size.
    let whole = count / block * block;
    (whole > 0).then_some(whole)
}
