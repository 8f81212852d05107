//! Names the mapped file that ends the process by SIGBUS.
//!
//! Owns: the table of live mappings, and the handler of SIGBUS that looks an address up in it. Refuses: continuing after it. A page that the
//! device cannot read, or that a truncated file no longer has, cannot be given to its reader; the next open reads every page before it
//! uses any, and rebuilds what does not hold from the journal.
//!
//! The handler allocates nothing, takes no lock and calls only `write`, `sigaction` and `raise`, which a signal handler may. It restores
//! what handled the signal before. Then the instruction faults again, and the process ends by the signal. One that a process sent
//! gets the default action and is raised again.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Most mappings in the table; the files of others are not named.
const SLOTS: usize = 1024;
/// Longest path that is shown; of longer ones, the end.
const PATH_BYTES: usize = 232;
/// The start of a slot that is being filled; no mapping begins there.
const FILLING: usize = 1;

struct Slot {
    /// 0: free.
    start: AtomicUsize,
    end: AtomicUsize,
    path_bytes: AtomicUsize,
    path: [AtomicU8; PATH_BYTES],
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        path_bytes: AtomicUsize::new(0),
        path: [const { AtomicU8::new(0) }; PATH_BYTES],
    }
}; SLOTS];

/// What handled the signal before.
static PREVIOUS: OnceLock<Result<libc::sigaction, i32>> = OnceLock::new();

/// A mapping in the table, until this drops.
#[derive(Debug)]
pub(super) struct Registration(Option<usize>);

impl Registration {
    /// Registers the mapping of the file at `path`.
    pub(super) fn new(mapped: &[u8], path: &Path) -> Self {
        let free = TABLE.iter().position(|slot| {
            let taken =
                slot.start
                    .compare_exchange(0, FILLING, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        });
        let Some(slot) = free.and_then(|free| TABLE.get(free)) else {
            return Self(None);
        };
        let path = path.as_os_str().as_bytes();
        let shown = path.len().min(PATH_BYTES);
        let tail = path.get(path.len() - shown..).unwrap_or_default();
        for (cell, byte) in slot.path.iter().zip(tail) {
            cell.store(*byte, Ordering::Relaxed);
        }
        slot.path_bytes.store(shown, Ordering::Relaxed);
        let start = mapped.as_ptr().addr();
        slot.end.store(start + mapped.len(), Ordering::Relaxed);
        slot.start.store(start, Ordering::Release);
        Self(free)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(slot) = self.0.and_then(|slot| TABLE.get(slot)) {
            slot.start.store(0, Ordering::Release);
        }
    }
}

/// The path of the mapping that holds `address`, written to the front of `line`; its length.
fn find(address: usize, line: &mut [u8]) -> Option<usize> {
    let slot = TABLE.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        start > FILLING && (start..slot.end.load(Ordering::Relaxed)).contains(&address)
    })?;
    let shown = slot.path_bytes.load(Ordering::Relaxed);
    let cells = slot.path.iter().take(shown);
    for (byte, cell) in line.iter_mut().zip(cells) {
        *byte = cell.load(Ordering::Relaxed);
    }
    Some(shown.min(line.len()))
}

/// Installs the handler, once for the process.
pub(in crate::io) fn install() -> io::Result<()> {
    // A second call would find this handler and take it for the one before.
    match PREVIOUS.get_or_init(replace) {
        Ok(_) => Ok(()),
        Err(errno) => Err(io::Error::from_raw_os_error(*errno)),
    }
}

/// Installs the handler and gives the one before, or the error of the system.
fn replace() -> Result<libc::sigaction, i32> {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
    let mut action = nothing();
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    let mut before = nothing();
    #[expect(unsafe_code, reason = "no safe wrapper exists for this system call")]
    // SAFETY: both pointers are to a `sigaction` on this stack, and the handler does only what one may do.
    let done = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) };
    if done != 0 {
        return Err(io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or_default());
    }
    Ok(before)
}

/// No handler, no flags, no signals.
fn nothing() -> libc::sigaction {
    #[expect(unsafe_code, reason = "its set of signals has no other constructor")]
    // SAFETY: zeroes are a valid `sigaction`, with the default action and an empty set.
    unsafe {
        std::mem::zeroed()
    }
}

extern "C" fn handle(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    #[expect(unsafe_code, reason = "the kernel gives a pointer")]
    // SAFETY: the kernel passes a valid one to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // `kill`, `sigqueue` and `tgkill` give codes of at most 0.
    let is_fault = info.si_code > 0;
    if is_fault {
        #[expect(unsafe_code, reason = "one field for several meanings")]
        // SAFETY: a fault has an address.
        let address = unsafe { info.si_addr() }.addr();
        report(address);
    }
    // A signal that was sent ends the process: the handler before, which is Rust's own, would wait for the instruction to fault again.
    let previous = PREVIOUS.get().copied().and_then(Result::ok);
    let next = previous.filter(|_| is_fault).unwrap_or_else(nothing);
    #[expect(unsafe_code, reason = "no safe wrapper exists for this system call")]
    // SAFETY: the pointer is to a `sigaction` on this stack.
    unsafe {
        libc::sigaction(libc::SIGBUS, &raw const next, ptr::null_mut());
    }
    if !is_fault {
        #[expect(unsafe_code, reason = "no safe wrapper exists for this system call")]
        // SAFETY: takes a number. The signal is delivered when this handler returns.
        unsafe {
            libc::raise(libc::SIGBUS);
        }
    }
}

/// Names the file of a page that cannot be read.
fn report(address: usize) {
    let mut path = [0; PATH_BYTES];
    let Some(shown) = find(address, &mut path) else {
        return;
    };
    write_stderr(b"tonnage: cannot read a mapped page of ");
    write_stderr(path.get(..shown).unwrap_or_default());
    write_stderr(b": the file was truncated or its device failed. The process ends; the next start reads the file and rebuilds it from the journal. Check the device (dmesg)\n");
}

/// Writes to stderr. A failure cannot be reported anywhere.
fn write_stderr(bytes: &[u8]) {
    #[expect(unsafe_code, reason = "a buffered stream may hold a lock")]
    // SAFETY: pointer and length are those of a slice.
    unsafe {
        libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: an address leads to the file that is mapped there, of a long path to its end, and no longer once it is unmapped.
    #[test]
    fn an_address_leads_to_its_file() {
        let (first, second) = (vec![0_u8; 100], vec![0_u8; 100]);
        let long = format!("/{}/0000000000000001.base", "x".repeat(300));
        let _first = Registration::new(&first, Path::new("/store/base/0.base"));
        let named = Registration::new(&second, Path::new(&long));
        let found = |bytes: &[u8], at: usize| {
            let mut line = [0; PATH_BYTES];
            let shown = find(bytes.as_ptr().addr() + at, &mut line)?;
            Some(String::from_utf8(line[..shown].to_vec()).unwrap())
        };
        assert_eq!(found(&first, 0).unwrap(), "/store/base/0.base");
        assert_eq!(found(&first, 99).unwrap(), "/store/base/0.base");
        assert!(
            found(&second, 50)
                .unwrap()
                .ends_with("x/0000000000000001.base")
        );
        drop(named);
        assert_eq!(found(&second, 50), None);
    }
}
