//! Files that only their owner may read.
//!
//! Owns: reading and replacing them. After a stop a file has the old content or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::AccessError;

const MODE: u32 = 0o600;

/// Reads a file. One that does not exist is empty.
pub(super) fn read(path: &Path) -> Result<String, AccessError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|source| failure("read", path, source)),
    }
}

/// Waits for the lock of the directory of a file, which is created. The lock ends when the result drops.
pub(super) fn lock(path: &Path) -> Result<File, AccessError> {
    let directory = directory(path)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(MODE);
    let locked = options.open(directory.join("lock")).and_then(|lock| {
        lock.lock()?;
        Ok(lock)
    });
    locked.map_err(|source| failure("lock", path, source))
}

/// Replaces a file.
pub(super) fn replace(path: &Path, content: &str) -> Result<(), AccessError> {
    let directory = directory(path)?;
    let new = path.with_extension("new");
    let written = remove_if_there(&new).and_then(|()| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(MODE).open(&new)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(directory)?.sync_all()
    });
    written.map_err(|source| failure("write", path, source))
}

/// Creates the directory of a file.
fn directory(path: &Path) -> Result<&Path, AccessError> {
    let directory = path.parent().unwrap_or(path);
    let created = DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(directory);
    created.map_err(|source| failure("create", directory, source))?;
    Ok(directory)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn failure(action: &'static str, path: &Path, source: io::Error) -> AccessError {
    let path = path.to_path_buf();
    AccessError::File {
        action,
        path,
        source,
    }
}
