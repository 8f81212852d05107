//! Errors of the seam's operations.
//!
//! Owns: [`IoError`]. Refuses: conclusions from it, which each caller draws.

use std::fmt;
use std::io;

/// Result of an operation of the seam.
pub type IoResult<T> = Result<T, IoError>;

/// Why an operation failed, by what is known of the disk afterwards.
#[derive(Debug)]
pub enum IoError {
    /// The operation was not begun: no descriptor, thread, memory or place in a queue, or a limit of this process.
    /// Nothing was read, changed or synced. The same operation may succeed later.
    NotAttempted(io::Error),
    /// The operation was begun, or rejected because of what is on the disk. Its changes may be there in part.
    Failed(io::Error),
    /// A sync failed. The data that it covered may never become durable, and no later sync would report that.
    SyncFailed(io::Error),
}

impl IoError {
    /// Returns the error of the operating system or the backend.
    pub fn cause(&self) -> &io::Error {
        match self {
            Self::NotAttempted(cause) | Self::Failed(cause) | Self::SyncFailed(cause) => cause,
        }
    }

    /// Returns the same as [`IoError::cause`], by value.
    pub fn into_cause(self) -> io::Error {
        match self {
            Self::NotAttempted(cause) | Self::Failed(cause) | Self::SyncFailed(cause) => cause,
        }
    }

    /// Returns the kind of the cause.
    pub fn kind(&self) -> io::ErrorKind {
        self.cause().kind()
    }

    /// Whether the operation was begun.
    pub fn was_attempted(&self) -> bool {
        !matches!(self, Self::NotAttempted(_))
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.cause(), f)
    }
}

impl std::error::Error for IoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause().source()
    }
}

/// An error that a backend or a loop over it creates itself is of an attempted operation.
impl From<io::Error> for IoError {
    fn from(cause: io::Error) -> Self {
        Self::Failed(cause)
    }
}
