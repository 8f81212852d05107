//! Pages of a file at chosen addresses.
//!
//! Owns: [`Pages`] and the system calls on them. Refuses: which addresses (`arena`).

use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Pages that are looked at in one call.
const PAGES_AT_ONCE: usize = 512;

/// Whole pages at addresses of the arena, which belong to whoever has this.
#[derive(Debug)]
pub(super) struct Pages {
    addresses: Range<usize>,
    page_bytes: usize,
}

impl Pages {
    /// Makes it of addresses that are reserved and that nobody else uses.
    pub(super) fn new(addresses: Range<usize>, page_bytes: usize) -> Self {
        Self {
            addresses,
            page_bytes,
        }
    }

    fn start(&self) -> *mut c_void {
        ptr::with_exposed_provenance_mut(self.addresses.start)
    }

    fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Maps a file from `offset`. After an error the addresses may be free, so they must not be used any more.
    pub(super) fn map(&self, descriptor: &OwnedFd, offset: u64) -> Result<(), Errno> {
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let (start, bytes) = (self.start(), self.len());
        #[expect(unsafe_code, reason = "maps a file at chosen addresses")]
        // SAFETY: nobody else uses these addresses.
        let mapped =
            unsafe { rustix::mm::mmap(start, bytes, ProtFlags::READ, flags, descriptor, offset) };
        mapped.map(drop)
    }

    /// Unmaps what is there, and reserves the addresses again. After an error they must not be used any more.
    pub(super) fn unmap(&self) -> Result<(), Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        let (start, bytes) = (self.start(), self.len());
        #[expect(unsafe_code, reason = "reserves the addresses again")]
        // SAFETY: nobody else uses these addresses, and nothing refers to the bytes there any more.
        let reserved =
            unsafe { rustix::mm::mmap_anonymous(start, bytes, ProtFlags::empty(), flags) };
        reserved.map(drop)
    }

    /// Returns a part of what is mapped. Bytes that cannot be read are zeros.
    pub(super) fn bytes(&self, part: Range<usize>) -> &[u8] {
        assert!(part.start <= part.end && part.end <= self.len(), "{part:?}");
        let start = ptr::with_exposed_provenance(self.addresses.start + part.start);
        #[expect(unsafe_code, reason = "the pages of a mapped file as a slice")]
        // SAFETY: a file is mapped there as long as this is borrowed, so the bytes can be read. The engine never writes
        // to bytes of a file that it uses in this way. Another program, or a page that cannot be read any more, may
        // change them; whoever uses them checks them, and relies on no byte to stay as it is.
        unsafe {
            std::slice::from_raw_parts(start, part.len())
        }
    }

    /// Returns whether all pages are in memory. Says yes without looking for a file that is not the process's own.
    pub(super) fn are_resident(&self) -> Result<bool, Errno> {
        let mut pages = [0; PAGES_AT_ONCE];
        let count = self.len() / self.page_bytes;
        assert!(count <= PAGES_AT_ONCE, "{count} pages");
        #[expect(unsafe_code, reason = "no safe wrapper exists for this system call")]
        // SAFETY: the array has a byte for each page, which the call writes to. It does not use the pages.
        let result = unsafe { libc::mincore(self.start(), self.len(), pages.as_mut_ptr()) };
        if result != 0 {
            let refused = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&refused).unwrap_or(Errno::IO));
        }
        Ok(pages.iter().take(count).all(|page| page & 1 == 1))
    }

    /// Brings all pages into memory and into the page table (Linux 5.14).
    pub(super) fn populate(&self) -> Result<(), Errno> {
        let (start, bytes) = (self.start(), self.len());
        #[expect(unsafe_code, reason = "advice about chosen addresses")]
        // SAFETY: this advice changes nothing that a read of the pages would not change, too.
        unsafe {
            rustix::mm::madvise(start, bytes, Advice::LinuxPopulateRead)
        }
    }

    /// Takes the pages out of the page table, as the kernel does when it evicts them.
    pub(super) fn evict(&self) -> Result<(), Errno> {
        let (start, bytes) = (self.start(), self.len());
        #[expect(unsafe_code, reason = "advice about chosen addresses")]
        // SAFETY: the pages are of a file, so their next use finds the bytes of the file again.
        unsafe {
            rustix::mm::madvise(start, bytes, Advice::LinuxDontNeed)
        }
    }
}
