//! The backend for this machine.
//!
//! Owns: choosing it, and the process settings that it needs.

use std::io;
use std::sync::Arc;

use super::Io;
use super::threads::Threads;

/// Starts the backend for this machine.
///
/// # Errors
/// Its threads cannot be started.
pub fn native() -> io::Result<Arc<dyn Io>> {
    ignore_file_size_signal();
    Ok(Arc::new(Threads::start()?))
}

/// Ignores SIGXFSZ, so that a write beyond `RLIMIT_FSIZE` is an error of that write. By default the signal ends the
/// process.
fn ignore_file_size_signal() {
    #[expect(unsafe_code, reason = "no safe wrapper exists for this system call")]
    // SAFETY: ignoring a signal installs no handler, so no code runs in one.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if before == libc::SIG_ERR {
        tracing::warn!(
            "SIGXFSZ could not be ignored; a write beyond the limit on file size (ulimit -f) would end this process"
        );
    }
}
