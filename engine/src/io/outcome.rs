//! How an operation of the seam ends without a result.
//!
//! Owns: [`IoError`]. Refuses: what the engine concludes from it; the rule is with each caller.

use std::fmt;
use std::io;

/// Result of an operation of the seam.
pub type IoResult<T> = Result<T, IoError>;

/// Why an operation has no result, by what is known of the disk now.
#[derive(Debug)]
pub enum IoError {
    /// It was not begun: no descriptor, no thread, no memory, no place in a queue, or a limit of this process. Nothing was read, changed
    /// or synced, the disk is as sound as before, and the same operation may succeed later.
    NotAttempted(io::Error),
    /// It was begun, or refused because of what is on the disk. What it was to change may be changed in part.
    Failed(io::Error),
    /// A sync failed. What it covered may never become durable, and no later sync says otherwise.
    SyncFailed(io::Error),
}

impl IoError {
    /// What the operating system or the backend said.
    pub fn cause(&self) -> &io::Error {
        match self {
            Self::NotAttempted(cause) | Self::Failed(cause) | Self::SyncFailed(cause) => cause,
        }
    }

    /// As [`IoError::cause`], given away.
    pub fn into_cause(self) -> io::Error {
        match self {
            Self::NotAttempted(cause) | Self::Failed(cause) | Self::SyncFailed(cause) => cause,
        }
    }

    /// The cause's kind.
    pub fn kind(&self) -> io::ErrorKind {
        self.cause().kind()
    }

    /// Whether it was begun.
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

/// What a backend or a loop over it says of its own accord was attempted.
impl From<io::Error> for IoError {
    fn from(cause: io::Error) -> Self {
        Self::Failed(cause)
    }
}
