//! Windows of files in memory, without a copy.
//!
//! Owns: [`MappedWindow`], a range of a file that was in the page cache when it was mapped; [`FaultWatch`], by which a
//! reader notices that it may have read other bytes than before. Refuses: what a window is used for.
//!
//! Invariants:
//! - A window belongs to one reader. After it, the pages stay mapped for the next one, until other windows need the
//!   addresses or the file is closed.
//! - A window that is not in memory is not mapped, so mapping does not wait for the drive. Later the kernel may evict
//!   pages, and a use of such a page waits for the drive.
//! - All windows lie in one range of addresses ([`arena`]). A page there that cannot be read, because of a drive error
//!   or a truncated file, reads as zeros ([`bus_error`]). So a fault of the drive never ends the process.

mod arena;
mod bus_error;
mod idle;
mod page_faults;
mod pages;

use std::os::fd::OwnedFd;
use std::sync::Arc;

pub(super) use self::arena::FileWindows;
use self::arena::{Arena, Slot};
use super::errno::operation_error;
use super::threads::pool::Pool;
use super::{Call, IoFuture, Mapping};

pub use self::page_faults::FaultWatch;

/// A range of a file that is mapped until this drops.
#[derive(Debug)]
pub(super) struct MappedWindow {
    slot: Slot,
    /// Bytes of the first page before the range.
    skip: usize,
    length: usize,
    pool: Arc<Pool>,
}

impl MappedWindow {
    /// Maps `length` bytes of a file from `offset`. `None` if they are not all in memory, if no slot is free, or if
    /// files cannot be mapped here.
    pub(super) fn new(
        file: &Arc<FileWindows>,
        descriptor: &OwnedFd,
        offset: u64,
        length: usize,
        pool: &Arc<Pool>,
    ) -> Option<Self> {
        let arena = Arena::of_process()?;
        let page = arena.page_bytes() as u64;
        let skip = usize::try_from(offset % page).ok()?;
        let pages = (skip + length).next_multiple_of(arena.page_bytes());
        let mut slot = arena.map(file, descriptor, offset - offset % page, pages)?;
        slot.prepare().then(|| Self {
            slot,
            skip,
            length,
            pool: Arc::clone(pool),
        })
    }
}

impl Mapping for MappedWindow {
    fn bytes(&self) -> &[u8] {
        self.slot.pages().bytes(self.skip..self.skip + self.length)
    }

    fn is_resident(&self) -> bool {
        self.slot.is_resident()
    }

    fn load(self: Arc<Self>, call: Call) -> IoFuture<()> {
        let pool = Arc::clone(&self.pool);
        pool.run_read(call, move || {
            self.slot.pages().populate().map_err(operation_error)
        })
    }
}

#[cfg(test)]
mod tests;
