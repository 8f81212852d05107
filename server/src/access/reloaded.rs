//! Files that are read again when they change.
//!
//! Owns: [`ReloadedFile`]. Refuses: what the content means.
//!
//! Invariants: content that cannot be used changes nothing: the last good one stays, and the log says why, once for
//! each content. A file that others write is used only when it has stayed the same for a while, because it may be half
//! written; an empty one is never used in place of another.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::kept_files::{self, FileError};

/// How long a file that others write must stay the same before it is used.
const SETTLED: Duration = Duration::from_millis(900);

/// A file with the value that its content has.
pub(super) struct ReloadedFile<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    /// Whether only this program writes the file, by replacing it. Then it may also be missing.
    is_own: bool,
    value: ArcSwap<T>,
    seen: Mutex<Seen>,
}

/// What was read last.
struct Seen {
    /// The content, or why there is none; also if it could not be used.
    content: String,
    /// Content that may still be written, and since when it is the same.
    unsettled: Option<(String, Instant)>,
}

impl<T> ReloadedFile<T> {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or its content cannot be used.
    pub(super) fn open(
        path: PathBuf,
        is_own: bool,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Self, FileError> {
        let content = read(&path, is_own)?;
        let value = parse(&content).map_err(|why| FileError::unusable(&path, why))?;
        Ok(Self {
            path,
            parse,
            is_own,
            value: ArcSwap::from_pointee(value),
            seen: Mutex::new(Seen {
                content,
                unsettled: None,
            }),
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
        let content = match read(&self.path, self.is_own) {
            Ok(content) => content,
            Err(error) => {
                let why = error.to_string();
                if seen.content != why {
                    tracing::error!(why, "what was read before stays in use");
                    seen.content = why;
                }
                return;
            }
        };
        if content == seen.content {
            seen.unsettled = None;
            return;
        }
        if !self.is_own && !seen.is_settled(&content) {
            return;
        }
        let path = self.path.display();
        let parsed = if content.is_empty() && !self.is_own {
            Err("it is empty".to_owned())
        } else {
            (self.parse)(&content)
        };
        match parsed {
            Ok(value) => {
                self.value.store(Arc::new(value));
                tracing::info!(%path, "a file was read again");
            }
            Err(why) => {
                tracing::error!(%path, why, "a file cannot be used; what was read before stays in use");
            }
        }
        seen.content = content;
        seen.unsettled = None;
    }
}

impl Seen {
    /// Returns whether new content has been the same for long enough.
    fn is_settled(&mut self, content: &str) -> bool {
        let now = Instant::now();
        match &self.unsettled {
            Some((known, since)) if known == content => now.duration_since(*since) >= SETTLED,
            Some(_) | None => {
                self.unsettled = Some((content.to_owned(), now));
                false
            }
        }
    }
}

fn read(path: &Path, may_be_absent: bool) -> Result<String, FileError> {
    let bytes = if may_be_absent {
        kept_files::read_if_there(path)?.unwrap_or_default()
    } else {
        kept_files::read(path)?
    };
    kept_files::text(path, bytes)
}

/// The content may be secret.
impl<T> fmt::Debug for ReloadedFile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReloadedFile").field(&self.path).finish()
    }
}
