//! The mark that a store takes no more writes until it is opened again.
//!
//! Owns: the first failure that left the disk in an unknown state. Refuses: being reset; recovery runs only at open, and a
//! failed sync is never repeated (a kernel may drop the dirty pages with the error).

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::IoError;
use crate::sync::OnceLock;

/// Unset, or the first failure. Share by `Arc`.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    cause: OnceLock<Arc<Error>>,
}

impl Poison {
    /// [`Error::Poisoned`] if it was set.
    pub(crate) fn check(&self) -> Result<()> {
        match self.cause() {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause }),
        }
    }

    /// The failure, if it was set.
    pub(crate) fn cause(&self) -> Option<Arc<Error>> {
        self.cause.get().map(Arc::clone)
    }

    /// Stops all writes because of `error`; returns what a waiting caller is told. Only the first failure is kept. What was not attempted
    /// is no failure of the disk: it is returned as it is, and stops nothing.
    pub(crate) fn set(&self, error: Error) -> Error {
        if error.is_not_attempted() {
            return error;
        }
        let cause = Arc::clone(self.cause.get_or_init(|| {
            tracing::error!(%error, "the store takes no more writes; reads go on. Check the drive, then restart");
            Arc::new(error)
        }));
        Error::Poisoned { cause }
    }

    /// The error of a sync of the directory at `path`, whose names many files share. A failed one stops all writes, because it is not
    /// known whose names are lost; a directory that could not even be opened for it was not synced, and stops nothing.
    pub(crate) fn of_directory_sync(&self, path: &Path, error: IoError) -> Error {
        let failed = matches!(error, IoError::SyncFailed(_));
        let error = Error::io("sync directory", path, error);
        if failed { self.set(error) } else { error }
    }
}
