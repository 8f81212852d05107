//! When API keys were last used.
//!
//! Owns: [`KeyUses`] and its file, which the server writes, so that commands which change keys need no server and the
//! server never writes over their change. Refuses: a time for each use: a use is known to the minute, and to a second
//! after a clean stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::access::own_file;
use crate::kept_files::FileError;

/// Least time between two replacements of the file.
const SAVED_EVERY: Duration = Duration::from_mins(1);

/// The last use of each key, in Unix time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Uses(BTreeMap<String, u64>);

/// When keys were last used.
#[derive(Debug)]
pub(super) struct KeyUses {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    uses: Uses,
    is_saved: bool,
    last_attempt: Option<Instant>,
}

/// Reads the last use of each key. A file that cannot be used is no reason not to know the keys.
pub(super) fn read(directory: &Path) -> BTreeMap<String, u64> {
    let path = path(directory);
    let uses: Uses = own_file::read(&path, own_file::parse).unwrap_or_else(|error| {
        tracing::warn!(%error, "the last uses of API keys are not known");
        Uses::default()
    });
    uses.0
}

fn path(directory: &Path) -> PathBuf {
    directory.join("key-uses.toml")
}

impl KeyUses {
    /// Reads what is known.
    pub(super) fn open(directory: &Path) -> Self {
        Self {
            path: path(directory),
            state: Mutex::new(State {
                uses: Uses(read(directory)),
                is_saved: true,
                last_attempt: None,
            }),
        }
    }

    /// Notes a use.
    pub(super) fn note(&self, id: &str, now_unix_s: u64) {
        let mut state = self.state.lock();
        match state.uses.0.get_mut(id) {
            Some(last) if *last == now_unix_s => return,
            Some(last) => *last = now_unix_s,
            None => drop(state.uses.0.insert(id.to_owned(), now_unix_s)),
        }
        state.is_saved = false;
    }

    /// Writes the file, if it is not current and was not written a moment ago. Waits for the disk.
    pub(super) fn save_if_due(&self, is_known: impl Fn(&str) -> bool) -> Result<(), FileError> {
        {
            let mut state = self.state.lock();
            if state
                .last_attempt
                .is_some_and(|last| last.elapsed() < SAVED_EVERY)
            {
                return Ok(());
            }
            // Also if it fails, so that a full disk is not tried every second.
            state.last_attempt = Some(Instant::now());
        }
        self.save(is_known)
    }

    /// Writes the file, if it is not current, without keys that no longer exist. Waits for the disk.
    pub(super) fn save(&self, is_known: impl Fn(&str) -> bool) -> Result<(), FileError> {
        let uses = {
            let mut state = self.state.lock();
            if state.is_saved {
                return Ok(());
            }
            state.is_saved = true;
            state.uses.0.retain(|id, _| is_known(id));
            state.uses.clone()
        };
        let written = own_file::write(&self.path, &uses);
        if written.is_err() {
            self.state.lock().is_saved = false;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: uses are written at most once a minute, those of keys that exist; what could not be written is written
    /// later. They are known to the next server.
    #[test]
    fn uses_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let uses = KeyUses::open(directory.path());
        uses.note("a", 1);
        uses.note("b", 2);
        uses.save_if_due(|id| id == "a").unwrap();
        assert_eq!(
            read(directory.path()),
            BTreeMap::from([("a".to_owned(), 1)])
        );
        uses.note("a", 3);
        uses.save_if_due(|_| true).unwrap();
        assert_eq!(read(directory.path())["a"], 1);
        // Something else is where the file belongs.
        let path = path(directory.path());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        uses.save(|_| true).unwrap_err();
        std::fs::remove_dir(&path).unwrap();
        uses.save(|_| true).unwrap();
        let again = KeyUses::open(directory.path());
        assert_eq!(again.state.lock().uses.0["a"], 3);
    }
}
