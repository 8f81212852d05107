//! Pages of mapped windows that cannot be read.
//!
//! Owns: the handler of SIGBUS. The kernel sends it to a thread that uses a mapped page which the drive cannot read, or
//! which is behind the end of a truncated file. By default it ends the process.
//!
//! Invariant: the handler only makes system calls and reads what was set before it was installed, so it may run at any
//! point of any code.

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

/// What the handler needs.
struct Served {
    addresses: Range<usize>,
    page_bytes: usize,
    /// The handler before.
    previous: libc::sigaction,
}

static SERVED: OnceLock<Served> = OnceLock::new();

/// Pages that were replaced.
static REPLACED: AtomicU64 = AtomicU64::new(0);

/// Returns how many pages could not be read so far.
pub(super) fn count() -> u64 {
    REPLACED.load(Ordering::Relaxed)
}

/// Lets pages at `addresses` that cannot be read be zeros. Other bus errors have the effect that they had before. Call
/// it once.
pub(super) fn serve(addresses: Range<usize>) -> io::Result<()> {
    let zeroed = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    #[expect(unsafe_code, reason = "a structure of the C library")]
    // SAFETY: zeros are valid for all its fields: no handler, no flags, and an empty set of signals.
    let mut action = unsafe { zeroed.assume_init() };
    let mut previous = action;
    change(None, Some(&mut previous))?;
    let set = SERVED.set(Served {
        addresses,
        page_bytes: rustix::param::page_size(),
        previous,
    });
    assert!(set.is_ok(), "the handler is installed once");
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    change(Some(&action), None)
}

/// Reads or sets the handler.
fn change(new: Option<&libc::sigaction>, old: Option<&mut libc::sigaction>) -> io::Result<()> {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    let old = old.map_or(ptr::null_mut(), ptr::from_mut);
    #[expect(unsafe_code, reason = "no safe wrapper exists for this call")]
    // SAFETY: both pointers are null or lead to a structure of the right kind. The new handler is `on_bus_error`, which
    // may run at any point, or the one before.
    let result = unsafe { libc::sigaction(libc::SIGBUS, new, old) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let Some(served) = SERVED.get() else {
        return;
    };
    #[expect(unsafe_code, reason = "a structure of the kernel")]
    // SAFETY: with SA_SIGINFO the kernel passes a valid pointer.
    let info = unsafe { &*info };
    if info.si_code <= 0 {
        // Another process sent it, so it has no address.
        change(Some(&served.previous), None).unwrap_or_default();
        #[expect(unsafe_code, reason = "no safe wrapper exists for this call")]
        // SAFETY: the call only sends a signal to this thread.
        unsafe {
            libc::raise(libc::SIGBUS);
        }
        return;
    }
    #[expect(unsafe_code, reason = "a field of a union")]
    // SAFETY: this signal has an address.
    let address = unsafe { info.si_addr() }.addr();
    let page = address / served.page_bytes * served.page_bytes;
    if served.addresses.contains(&page) && map_zeros(page, served.page_bytes) {
        REPLACED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    // Back in the code before, the same use of the page has the effect that it had without this handler.
    change(Some(&served.previous), None).unwrap_or_default();
}

/// Replaces a page of the arena.
fn map_zeros(page: usize, bytes: usize) -> bool {
    let (place, flags) = (
        ptr::with_exposed_provenance_mut(page),
        MapFlags::PRIVATE | MapFlags::FIXED,
    );
    #[expect(unsafe_code, reason = "maps zeros at chosen addresses")]
    // SAFETY: the page belongs to a mapped window. It is part of no Rust object that relies on its bytes, and it is
    // mapped again when the window ends.
    let mapped = unsafe { rustix::mm::mmap_anonymous(place, bytes, ProtFlags::READ, flags) };
    mapped.is_ok()
}
