//! Classification of errors of system calls.
//!
//! Owns: deciding whether an operation was not attempted or failed. An error of a sync never counts as not attempted.

use std::io;

use rustix::io::Errno;

use super::IoError;

/// Errors by which the kernel reports that it could not begin: too many open files, no memory, try again. And a write
/// or a file beyond the limit of this process (`RLIMIT_FSIZE`), which is checked before anything is moved.
const NOT_ATTEMPTED: [Errno; 6] = [
    Errno::MFILE,
    Errno::NFILE,
    Errno::NOMEM,
    Errno::AGAIN,
    Errno::INTR,
    Errno::FBIG,
];

/// Returns the error of a call that is not a sync.
pub(super) fn operation_error(errno: impl Into<io::Error>) -> IoError {
    let cause = errno.into();
    let errno = Errno::from_io_error(&cause);
    if errno.is_some_and(|errno| NOT_ATTEMPTED.contains(&errno)) {
        IoError::NotAttempted(cause)
    } else {
        IoError::Failed(cause)
    }
}

/// Returns the error of a sync, whatever its code: another sync would say nothing certain about the same pages.
pub(super) fn sync_error(errno: Errno) -> IoError {
    IoError::SyncFailed(errno.into())
}
