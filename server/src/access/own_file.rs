//! Files of access control that only this program writes: users, keys and their uses.
//!
//! Owns: reading, changing and writing them, as TOML. Refuses: what they have.
//!
//! Invariants: changes take turns by a lock, so commands and servers may run at the same time. Only its owner can read
//! such a file. An error says where it is wrong, and never what is there.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::kept_files::{self, FileError, SECRET};

/// Parses the content of a file.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(0, |before| before.matches('\n').count()) + 1;
        format!("line {line} is not what the program writes there")
    })
}

/// Reads a file, which may be missing.
pub(super) fn read<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, FileError> {
    let bytes = kept_files::read_if_there(path)?;
    let text = kept_files::text(path, bytes.unwrap_or_default())?;
    parse(&text).map_err(|why| FileError::unusable(path, why))
}

/// Replaces a file.
pub(super) fn write(path: &Path, content: &impl Serialize) -> Result<(), FileError> {
    let text = toml::to_string(content).map_err(|error| FileError::unusable(path, error))?;
    kept_files::replace(path, &text, SECRET)
}

/// Changes a file, in turn with other commands. `content` is what is written of a value.
pub(super) fn change<T, C: Serialize, R>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, String>,
    change: impl FnOnce(&mut T) -> R,
    content: impl FnOnce(T) -> C,
) -> Result<R, FileError> {
    let _lock = kept_files::lock(path)?;
    let mut value = read(path, parse)?;
    let result = change(&mut value);
    write(path, &content(value))?;
    Ok(result)
}
