//! The backend for this machine.
//!
//! Owns: choosing it, and the process settings that it needs.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::Io;
use super::threads::Threads;
use super::uring::{Table, Unavailable, Uring};

/// Which backend is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `io_uring` for what it does faster, if it works here; else threads.
    Auto,
    /// Threads.
    Threads,
    /// `io_uring` for all that it can do, or an error.
    IoUring,
}

/// A backend that was started.
#[derive(Debug)]
pub struct Started {
    /// The backend.
    pub io: Arc<dyn Io>,
    /// Why this one runs if the choice was free: the reason against `io_uring`, with what an operator can do.
    pub why_not: Option<Unavailable>,
}

/// Why no backend was started.
#[derive(Debug)]
pub enum NotStarted {
    /// Its threads cannot be started.
    Threads(io::Error),
    /// `io_uring` was demanded and does not work here.
    IoUring(Unavailable),
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(error) => write!(f, "threads could not be started: {error}"),
            Self::IoUring(unavailable) => unavailable.fmt(f),
        }
    }
}

impl std::error::Error for NotStarted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Threads(error) => Some(error),
            Self::IoUring(unavailable) => Some(unavailable),
        }
    }
}

/// Starts the backend for this machine.
///
/// # Errors
/// Threads cannot be started, or the demanded backend does not work here.
pub fn native(wanted: Backend) -> Result<Started, NotStarted> {
    ignore_file_size_signal();
    let threads = Threads::start().map_err(NotStarted::Threads)?;
    let table = match wanted {
        Backend::Threads => {
            let io = Arc::new(threads);
            return Ok(Started { io, why_not: None });
        }
        Backend::Auto => Table::Measured,
        Backend::IoUring => Table::All,
    };
    match Uring::start(&threads, table) {
        Ok(rings) => Ok(Started {
            io: Arc::new(rings),
            why_not: None,
        }),
        Err(unavailable) if wanted == Backend::Auto => Ok(Started {
            io: Arc::new(threads),
            why_not: Some(unavailable),
        }),
        Err(unavailable) => Err(NotStarted::IoUring(unavailable)),
    }
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
