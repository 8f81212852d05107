//! The mark that a store takes no more writes until it is opened again.
//!
//! Owns: the first failure that left the disk in an unknown state. Refuses: being reset. Recovery runs only at open,
//! and a failed sync is never repeated, because a kernel may drop the dirty pages with the error.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::IoError;
use crate::sync::OnceLock;

/// The first failure, if there was one. Share by `Arc`.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    cause: OnceLock<Arc<Error>>,
}

impl Poison {
    /// Fails with [`Error::Poisoned`] if the mark is set.
    pub(crate) fn check(&self) -> Result<()> {
        match self.cause() {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause }),
        }
    }

    /// Returns the failure, if the mark is set.
    pub(crate) fn cause(&self) -> Option<Arc<Error>> {
        self.cause.get().map(Arc::clone)
    }

    /// Stops all writes because of `error` and returns the error for the caller. Only the first failure is kept.
    ///
    /// An operation that was not attempted is no failure of the disk: its error is returned unchanged, and nothing is
    /// stopped.
    pub(crate) fn set(&self, error: Error) -> Error {
        if error.is_not_attempted() {
            return error;
        }
        let cause = Arc::clone(self.cause.get_or_init(|| {
            tracing::error!(%error, "the store takes no more writes; reads continue. Check the drive, then restart");
            Arc::new(error)
        }));
        Error::Poisoned { cause }
    }

    /// Makes the error of a failed sync of the directory at `path`. A sync that failed stops all writes, because many
    /// files have their names there and it is not known which are lost. If the directory could not be opened, nothing
    /// was synced, and nothing is stopped.
    pub(crate) fn of_directory_sync(&self, path: &Path, error: IoError) -> Error {
        let failed = matches!(error, IoError::SyncFailed(_));
        let error = Error::io("sync directory", path, error);
        if failed { self.set(error) } else { error }
    }
}
