//! Addresses for mapped windows.
//!
//! Owns: [`Arena`], a range of addresses that is reserved once, and [`Slot`], a part of it into which a file is mapped.
//! So windows are bounded, and a fault at an address can be told to be of one. Refuses: which slots are used again
//! (`idle`), system calls on pages (`pages`).
//!
//! Invariant: no address of the arena is ever free for another mapping of the process. A slot whose addresses may have
//! become free is never used again.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::bus_error;
use super::idle::{Content, Place, Slots};
use super::page_faults::FaultWatch;
use super::pages::Pages;

/// Most windows that are mapped at the same time, those that nobody uses included. Page tables of all have 16 MiB.
const SLOTS_MAX: usize = 8192;
/// Part of the machine's memory that all windows have at most.
const MEMORY_PART: u64 = 2;
/// Bytes of the largest window.
const WINDOW_BYTES_MAX: usize = 1 << 20;

/// Reserved addresses, in slots.
#[derive(Debug)]
pub(super) struct Arena {
    start: usize,
    slot_bytes: usize,
    page_bytes: usize,
    slots: Mutex<Slots>,
    /// Set once mapping was found not to work here.
    is_off: AtomicBool,
}

impl Arena {
    /// Returns the arena of this process; `None` if files cannot be mapped here.
    pub(super) fn of_process() -> Option<&'static Self> {
        static ARENA: OnceLock<Option<Arena>> = OnceLock::new();
        let arena = ARENA.get_or_init(|| {
            let warn = |error: &io::Error| {
                tracing::warn!(%error, "windows of files cannot be mapped here; Linux 5.14 or newer is known to work; blobs are read by copying, which costs more processor time");
            };
            Self::reserve().inspect_err(warn).ok()
        });
        let is_on = |arena: &&Self| !arena.is_off.load(Ordering::Relaxed);
        arena.as_ref().filter(is_on)
    }

    fn reserve() -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        // A window may begin and end inside a page.
        let slot_bytes = WINDOW_BYTES_MAX.next_multiple_of(page_bytes) + page_bytes;
        let slots = slots();
        let bytes = slots.checked_mul(slot_bytes);
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        #[expect(unsafe_code, reason = "reserves addresses")]
        // SAFETY: the kernel chooses addresses that nothing uses, and nothing can be read or written there.
        let start = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), flags)
        };
        let start = start?.expose_provenance();
        bus_error::serve(start..start + bytes)?;
        let arena = Self {
            start,
            slot_bytes,
            page_bytes,
            slots: Mutex::new(Slots::new(slots)),
            is_off: AtomicBool::new(false),
        };
        arena.probe()?;
        Ok(arena)
    }

    /// Makes sure that the kernel counts a fault of a thread that uses a page which is not mapped, and only then.
    fn probe(&self) -> io::Result<()> {
        let file = rustix::fs::memfd_create("tonnage-probe", MemfdFlags::CLOEXEC)?;
        let other = rustix::fs::memfd_create("tonnage-probe", MemfdFlags::CLOEXEC)?;
        rustix::io::pwrite(&file, &vec![1; self.page_bytes], 0)?;
        let pages = self.pages(0, self.page_bytes);
        pages.map(&file, 0)?;
        pages.populate()?;
        let use_page = || {
            let watch = FaultWatch::begin();
            rustix::io::pwrite(&other, pages.bytes(0..1), 0)?;
            Ok::<_, Errno>(watch.saw_none())
        };
        // The first use also gets memory for the other file.
        use_page()?;
        let is_quiet = use_page()?;
        pages.evict()?;
        let is_noticed = !use_page()?;
        pages.unmap()?;
        if is_quiet && is_noticed {
            return Ok(());
        }
        let uncounted = "the kernel does not count page faults for each thread";
        Err(io::Error::new(io::ErrorKind::Unsupported, uncounted))
    }

    /// Returns the size of a page in bytes.
    pub(super) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Maps whole pages of a file into a slot. `None` if none is free or large enough, or if it failed. A slot that has
    /// these pages already is preferred.
    pub(super) fn map(
        &'static self,
        file: &Arc<FileWindows>,
        descriptor: &OwnedFd,
        offset: u64,
        bytes: usize,
    ) -> Option<Slot> {
        if bytes > self.slot_bytes {
            return None;
        }
        let place = Place {
            file: file.id,
            offset,
            bytes,
        };
        let bus_errors = bus_error::count();
        let (index, content) = self.slots.lock().take(place)?;
        let pages = self.pages(index, bytes);
        if content == Content::Other && !self.unmap(index) {
            return None;
        }
        if content != Content::Same
            && let Err(errno) = pages.map(descriptor, offset)
        {
            self.turn_off("map a file", errno);
            return None;
        }
        Some(Slot {
            arena: self,
            index,
            pages,
            place,
            file: Arc::downgrade(file),
            bus_errors,
            is_new: content != Content::Same,
            is_good: true,
        })
    }

    /// Returns the first pages of a slot.
    fn pages(&self, index: usize, bytes: usize) -> Pages {
        let start = self.start + index * self.slot_bytes;
        Pages::new(start..start + bytes, self.page_bytes)
    }

    /// Unmaps what is in a slot, so that it is free.
    fn release(&self, index: usize) {
        if self.unmap(index) {
            self.slots.lock().put_back(index);
        }
    }

    /// Unmaps what is in a slot. Returns false if the slot cannot be used any more.
    fn unmap(&self, index: usize) -> bool {
        let unmapped = self.pages(index, self.slot_bytes).unmap();
        let failed = |errno| self.turn_off("unmap a file", errno);
        unmapped.map_err(failed).is_ok()
    }

    fn turn_off(&self, what: &str, errno: Errno) {
        if !self.is_off.swap(true, Ordering::Relaxed) {
            let error = io::Error::from(errno);
            tracing::warn!(%error, "the kernel refused to {what}; from now on blobs are read by copying, which costs more processor time");
        }
    }
}

/// Returns the number of slots for this machine.
fn slots() -> usize {
    let machine = rustix::system::sysinfo();
    let memory = machine.totalram.saturating_mul(machine.mem_unit.into());
    let fit = memory / MEMORY_PART / WINDOW_BYTES_MAX as u64;
    usize::try_from(fit).map_or(SLOTS_MAX, |fit| fit.clamp(1, SLOTS_MAX))
}

/// The windows of one open file. When it drops, those that nobody uses are unmapped, because a mapped file keeps its
/// space when it is removed.
#[derive(Debug)]
pub(in crate::io) struct FileWindows {
    arena: &'static Arena,
    id: u64,
}

impl FileWindows {
    /// Prepares to map a file. `None` if files cannot be mapped here, or if the file is of another user: the kernel
    /// does not say then what of it is in memory.
    pub(in crate::io) fn new(descriptor: &OwnedFd) -> Option<Self> {
        static FILES: AtomicU64 = AtomicU64::new(0);
        let arena = Arena::of_process()?;
        let (owner, user) = (
            rustix::fs::fstat(descriptor).ok()?.st_uid,
            rustix::process::geteuid(),
        );
        let id = FILES.fetch_add(1, Ordering::Relaxed);
        (user.is_root() || user.as_raw() == owner).then_some(Self { arena, id })
    }
}

impl Drop for FileWindows {
    fn drop(&mut self) {
        let idle = self.arena.slots.lock().remove_file(self.id);
        for index in idle {
            self.arena.release(index);
        }
    }
}

/// Pages of a file at addresses of the arena, until this drops.
#[derive(Debug)]
pub(super) struct Slot {
    arena: &'static Arena,
    index: usize,
    pages: Pages,
    place: Place,
    file: Weak<FileWindows>,
    /// Bus errors when the slot was taken. After another one, pages may have been replaced.
    bus_errors: u64,
    is_new: bool,
    is_good: bool,
}

impl Slot {
    /// Returns its pages.
    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Returns whether all pages are in memory.
    pub(super) fn is_resident(&self) -> bool {
        let found = self.pages.are_resident();
        let refused = |errno: &Errno| self.arena.turn_off("say what is in memory", *errno);
        found.inspect_err(refused).unwrap_or(false)
    }

    /// Makes a window that is in memory ready for use. Returns false if it is not, or no longer.
    pub(super) fn prepare(&mut self) -> bool {
        self.is_good = self.is_resident() && (!self.is_new || self.pages.populate().is_ok());
        self.is_good
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Held until the slot is noted: if this is the last reference, all slots of the file are released then.
        let file = self.file.upgrade();
        let is_good = self.is_good && file.is_some() && bus_error::count() == self.bus_errors;
        let slots = &self.arena.slots;
        if !is_good || !slots.lock().keep(self.place, self.index) {
            self.arena.release(self.index);
        }
    }
}
