//! The files of certificates and keys.
//!
//! Owns: reading them with an error that names the file, and replacing them whole. Keys are readable by their owner
//! only.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::error::TlsError;

/// Largest file that is read: a chain of certificates has a few KiB.
const BYTES_MAX: u64 = 1 << 20;
/// Who may read a certificate, and a key.
pub(super) const PUBLIC: u32 = 0o644;
pub(super) const SECRET: u32 = 0o600;

/// Reads a whole file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| failure("read", path, source);
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > BYTES_MAX {
        return Err(TlsError::unusable(path, &format!("it has {length} bytes")));
    }
    fs::read(path).map_err(failed)
}

/// Reads a whole file, if it exists.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, TlsError> {
    match read(path) {
        Ok(content) => Ok(Some(content)),
        Err(TlsError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a directory that only its owner may use, unless it exists.
pub(super) fn create_directory(path: &Path) -> Result<(), TlsError> {
    let created = DirBuilder::new().mode(0o700).recursive(true).create(path);
    created.map_err(|source| failure("create", path, source))
}

/// Replaces a file: after a stop it has the old content or the new one.
pub(super) fn replace(path: &Path, content: &str, mode: u32) -> Result<(), TlsError> {
    let failed = |source| failure("write", path, source);
    let new = path.with_extension("new");
    // One that a stop left may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new);
    let mut file = created.map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    let directory = path.parent().unwrap_or(path);
    let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed)
}

fn failure(action: &'static str, path: &Path, source: io::Error) -> TlsError {
    let path = path.to_path_buf();
    TlsError::File {
        action,
        path,
        source,
    }
}
