//! Names in the directories of a store.
//!
//! Owns: which names belong to a store, and which of those have the wrong type of file. Refuses: changing anything.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::checkpoint;
use crate::error::{Error, Result};
use crate::io::{Class, Io, IoError};
use crate::journal::{self, reserve};
use crate::segment::parse_segment_name;
use crate::table::file_id;
use crate::upload::is_log_name;

/// Directories of a store.
pub(crate) const DIRECTORIES: [&str; 4] = ["journal", "segments", "uploads", "runs"];

/// Whether a store gives this name to files in `directory`: one of [`DIRECTORIES`], or `""` for the store's own. The
/// superblock does not count.
pub(crate) fn is_ours(directory: &str, name: &str) -> bool {
    match directory {
        "" => name == reserve::NAME || checkpoint::is_slot_name(name),
        "journal" => journal::parse_name(name).is_some(),
        "segments" => parse_segment_name(name).is_some(),
        "uploads" => is_log_name(name),
        "runs" => file_id(name).is_some(),
        _ => false,
    }
}

/// Returns the paths that have the name of a store's file or directory, but the wrong type. They are neither used nor
/// removed.
pub(crate) async fn misplaced(io: &dyn Io, store: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let names = list(io, store).await?;
    for directory in DIRECTORIES {
        let path = store.join(directory);
        let listed = io.list_dir(Class::Directory.call(), &path).await;
        if listed.is_err_and(|error| is_absent(&error))
            && names.iter().any(|name| name == directory)
        {
            found.push(path);
        }
    }
    for directory in [""].into_iter().chain(DIRECTORIES) {
        // Joining an empty path would append a slash.
        let path = store.components().chain(Path::new(directory).components());
        let path = path.collect::<PathBuf>();
        let names = list(io, &path).await?;
        let ours = names.into_iter().filter(|name| is_ours(directory, name));
        let ours: Vec<_> = ours.collect();
        if ours.is_empty() {
            continue;
        }
        let files = io.list_files(Class::Directory.call(), &path).await;
        let files = files.map_err(|source| Error::io("list", &path, source))?;
        let files: HashSet<_> = files.into_iter().map(|(name, _)| name).collect();
        let others = ours.into_iter().filter(|name| !files.contains(name));
        found.extend(others.map(|name| path.join(name)));
    }
    Ok(found)
}

/// Returns the names in a directory. Empty if the directory does not exist or is not one.
pub(super) async fn list(io: &dyn Io, path: &Path) -> Result<Vec<String>> {
    match io.list_dir(Class::Directory.call(), path).await {
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        names => names.map_err(|source| Error::io("list", path, source)),
    }
}

fn is_absent(error: &IoError) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
