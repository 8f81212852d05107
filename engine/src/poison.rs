//! The mark that a store takes no more writes until it is opened again.
//!
//! Owns: the first failure that left the disk in an unknown state. Refuses: being reset; recovery runs only at open, and a
//! failed sync is never repeated (a kernel may drop the dirty pages with the error).

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sync::OnceLock;

/// Unset, or the first failure. Share by `Arc`.
#[derive(Debug, Default)]
pub struct Poison {
    cause: OnceLock<Arc<Error>>,
}

impl Poison {
    /// [`Error::Poisoned`] if it was set.
    pub fn check(&self) -> Result<()> {
        match self.cause() {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause }),
        }
    }

    /// The failure, if it was set.
    pub fn cause(&self) -> Option<Arc<Error>> {
        self.cause.get().map(Arc::clone)
    }

    /// Stops all writes because of `error`; returns what a waiting caller is told. Only the first failure is kept. What was not attempted
    /// is no failure of the disk: it is returned as it is, and stops nothing.
    pub fn set(&self, error: Error) -> Error {
        if error.is_not_attempted() {
            return error;
        }
        let cause = Arc::clone(self.cause.get_or_init(|| {
            tracing::error!(%error, "the store takes no more writes; reads go on. Check the drive, then restart");
            Arc::new(error)
        }));
        Error::Poisoned { cause }
    }
}
