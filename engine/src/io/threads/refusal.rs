//! What an error of a system call says about the disk.
//!
//! Owns: telling an operation that was not attempted from one that failed. Refuses: syncs; none of theirs is taken for that.

use std::io;

use rustix::io::Errno;

use crate::io::IoError;

/// Errors by which the kernel says that it had no means, or was not allowed, to begin: too many open files, no memory, try again, and a
/// write or a file beyond the limit of this process (`RLIMIT_FSIZE`), which is looked at before anything is moved.
const NOT_ATTEMPTED: [Errno; 6] = [
    Errno::MFILE,
    Errno::NFILE,
    Errno::NOMEM,
    Errno::AGAIN,
    Errno::INTR,
    Errno::FBIG,
];

/// The error of a call that is no sync.
pub(super) fn begun(errno: impl Into<io::Error>) -> IoError {
    let cause = errno.into();
    let errno = Errno::from_io_error(&cause);
    if errno.is_some_and(|errno| NOT_ATTEMPTED.contains(&errno)) {
        IoError::NotAttempted(cause)
    } else {
        IoError::Failed(cause)
    }
}

/// The error of a sync, whatever it is: what another one would say about the same pages is not known.
pub(super) fn not_synced(errno: Errno) -> IoError {
    IoError::SyncFailed(errno.into())
}
