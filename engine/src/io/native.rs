//! The backend for the machine that this runs on.
//!
//! Owns: choosing it, and what the process has to be told for it.

use std::io;
use std::sync::Arc;

use super::Io;
use super::threads::Threads;

/// Starts the backend for this machine. An error if its threads cannot be started.
pub fn native() -> io::Result<Arc<dyn Io>> {
    ignore_file_size_signal();
    Ok(Arc::new(Threads::start()?))
}

/// A write beyond `RLIMIT_FSIZE` becomes an error of that write. By default the signal that comes with it ends the process.
fn ignore_file_size_signal() {
    #[expect(unsafe_code, reason = "no safe wrapper exists for this system call")]
    // SAFETY: ignoring a signal installs no handler, so no code runs in one.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if before == libc::SIG_ERR {
        tracing::warn!(
            "SIGXFSZ could not be ignored; a limit on the size of files (ulimit -f) would end this process"
        );
    }
}
