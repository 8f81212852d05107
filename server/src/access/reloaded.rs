//! Files that are read again when they change.
//!
//! Owns: [`ReloadedFile`]. Refuses: what the content means.
//!
//! Invariant: content that cannot be used changes nothing: the last good one stays, and the log says why, once for
//! each content.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::AccessError;

/// Largest file that is read.
const BYTES_MAX: u64 = 64 << 20;

/// A file with the value that its content has.
pub(super) struct ReloadedFile<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    /// Whether a missing file is one without content.
    may_be_absent: bool,
    value: ArcSwap<T>,
    /// The content that was read last, also if it could not be used.
    seen: Mutex<String>,
}

impl<T> ReloadedFile<T> {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or its content cannot be used.
    pub(super) fn open(
        path: PathBuf,
        may_be_absent: bool,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Self, AccessError> {
        let content = read(&path, may_be_absent)?;
        let value = parse(&content).map_err(|why| AccessError::unusable(&path, why))?;
        Ok(Self {
            path,
            parse,
            may_be_absent,
            value: ArcSwap::from_pointee(value),
            seen: Mutex::new(content),
        })
    }

    /// Returns the value of the content that was read last and could be used.
    pub(super) fn value(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// Reads the file again. Waits for the disk.
    pub(super) fn reload(&self) {
        // Held while the file is read, so that an older content never replaces a newer one.
        let mut seen = self.seen.lock();
        let content = match read(&self.path, self.may_be_absent) {
            Ok(content) => content,
            Err(error) => {
                let why = error.to_string();
                if *seen != why {
                    tracing::error!(why, "what was read before stays in use");
                    *seen = why;
                }
                return;
            }
        };
        if content == *seen {
            return;
        }
        let path = self.path.display();
        match (self.parse)(&content) {
            Ok(value) => {
                self.value.store(Arc::new(value));
                tracing::info!(%path, "a file was read again");
            }
            Err(why) => {
                tracing::error!(%path, why, "a file cannot be used; what was read before stays in use");
            }
        }
        *seen = content;
    }
}

fn read(path: &Path, may_be_absent: bool) -> Result<String, AccessError> {
    let failed = |source| AccessError::File {
        action: "read",
        path: path.to_path_buf(),
        source,
    };
    let length = match std::fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if may_be_absent && error.kind() == io::ErrorKind::NotFound => {
            return Ok(String::new());
        }
        Err(error) => return Err(failed(error)),
    };
    if length > BYTES_MAX {
        let why = format!("it has {length} bytes");
        return Err(AccessError::unusable(path, why));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The content may be secret.
impl<T> fmt::Debug for ReloadedFile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReloadedFile").field(&self.path).finish()
    }
}
