//! The files of certificates and keys, with errors that name them.

use std::fs;
use std::io;
use std::path::Path;

use super::error::TlsError;
use crate::kept_files;

/// Largest file that is read: a chain of certificates has a few KiB.
const BYTES_MAX: u64 = 1 << 20;

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
    kept_files::read_if_there(path).map_err(|source| failure("read", path, source))
}

/// Replaces a file.
pub(super) fn replace(path: &Path, content: &str, mode: u32) -> Result<(), TlsError> {
    let replaced = kept_files::replace(path, content.as_bytes(), mode);
    replaced.map_err(|source| failure("write", path, source))
}

fn failure(action: &'static str, path: &Path, source: io::Error) -> TlsError {
    let path = path.to_path_buf();
    TlsError::File {
        action,
        path,
        source,
    }
}
