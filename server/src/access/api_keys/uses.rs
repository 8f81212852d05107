//! When API keys were last used.
//!
//! Owns: [`KeyUses`] and its file, which the server writes, so that commands which change keys need no server and the
//! server never writes over their change. Refuses: a time for each use: a use is known to the minute, and to a second
//! after a clean stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::kept_files::{self, FileError, SECRET};

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
    saved_unix_s: u64,
}

/// Reads the last use of each key. A file that cannot be used is no reason not to know the keys.
pub(super) fn read(directory: &Path) -> BTreeMap<String, u64> {
    let path = path(directory);
    let read = kept_files::read_if_there(&path)
        .and_then(|bytes| kept_files::text(&path, bytes.unwrap_or_default()));
    let parsed = read
        .and_then(|text| toml::from_str(&text).map_err(|error| FileError::unusable(&path, error)));
    let uses: Uses = parsed.unwrap_or_else(|error| {
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
                saved_unix_s: 0,
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
    pub(super) fn save_if_due(
        &self,
        now_unix_s: u64,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<(), FileError> {
        {
            let mut state = self.state.lock();
            let since = now_unix_s.saturating_sub(state.saved_unix_s);
            if since < SAVED_EVERY.as_secs() {
                return Ok(());
            }
            // Also if it fails, so that a full disk is not tried every second.
            state.saved_unix_s = now_unix_s;
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
        let text =
            toml::to_string(&uses).map_err(|error| FileError::unusable(&self.path, error))?;
        let written = kept_files::replace(&self.path, &text, SECRET);
        if written.is_err() {
            self.state.lock().is_saved = false;
        }
        written
    }
}
