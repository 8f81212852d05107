//! Small files that the program keeps beside a store: keys, certificates, users.
//!
//! Owns: reading, locking and replacing them, and the error that names one. Refuses: their content.
//!
//! Invariants: a file is replaced whole, and durable on return, with the directories that were made for it: after a
//! stop it has the old content or the new one. What is made belongs to the owner of the directory above, so that a
//! command of root does not take a file from the server.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// Largest file that is read.
const BYTES_MAX: u64 = 64 << 20;
/// Who may read a file: everyone, or only its owner.
pub(crate) const PUBLIC: u32 = 0o644;
pub(crate) const SECRET: u32 = 0o600;

/// Why a small file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, such as "read".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its content cannot be used.
    #[error("{} cannot be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl FileError {
    /// Creates the error that the content of a file cannot be used.
    pub(crate) fn unusable(path: &Path, why: impl fmt::Display) -> Self {
        let (path, why) = (path.to_path_buf(), why.to_string());
        Self::Unusable { path, why }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let read_all = |file: File| {
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = File::open(path).and_then(read_all);
    let bytes = bytes.map_err(FileError::io("read", path))?;
    if bytes.len() as u64 > BYTES_MAX {
        let why = format!("it has more than {BYTES_MAX} bytes");
        return Err(FileError::unusable(path, why));
    }
    Ok(bytes)
}

/// Reads a file, if it exists.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match read(path) {
        Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Returns what was read as text.
pub(crate) fn text(path: &Path, bytes: Vec<u8>) -> Result<String, FileError> {
    String::from_utf8(bytes).map_err(|error| FileError::unusable(path, error))
}

/// Waits for the lock of the directory of a file, which is created. The lock ends when the result drops.
pub(crate) fn lock(path: &Path) -> Result<File, FileError> {
    locked(path).map_err(FileError::io("lock", path))
}

/// Replaces a file. Its directory is created.
pub(crate) fn replace(path: &Path, content: &str, mode: u32) -> Result<(), FileError> {
    write(path, content, mode).map_err(FileError::io("write", path))
}

fn locked(path: &Path) -> io::Result<File> {
    let directory = parent(path);
    create_directory(directory)?;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(SECRET);
    // The owner of the directory may have put a link to a file of root there.
    let options = options.custom_flags(nofollow());
    let lock = options.open(directory.join("lock"))?;
    give_to_owner_of(directory, &lock)?;
    lock.lock()?;
    Ok(lock)
}

fn write(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let directory = parent(path);
    create_directory(directory)?;
    let new = path.with_extension("new");
    // One that a stop left may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(content.as_bytes())?;
    give_to_owner_of(directory, &file)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync(directory)
}

/// Creates a directory that only its owner may use, with those above it, unless it exists.
fn create_directory(path: &Path) -> io::Result<()> {
    let above = parent(path);
    if path.is_dir() || above == path {
        return Ok(());
    }
    create_directory(above)?;
    match DirBuilder::new().mode(0o700).create(path) {
        // By another process.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        created => created?,
    }
    let mut options = OpenOptions::new();
    let made = options.read(true).custom_flags(nofollow()).open(path)?;
    give_to_owner_of(above, &made)?;
    sync(above)
}

/// Gives what root made to the owner of the directory that it is in. Others make files for themselves, and may use a
/// directory that belongs to root.
fn give_to_owner_of(directory: &Path, made: &File) -> io::Result<()> {
    let (owner, found) = (fs::metadata(directory)?, made.metadata()?);
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || found.uid() == owner.uid() {
        return Ok(());
    }
    // A file with another name elsewhere is not one that was made here.
    if found.is_file() && found.nlink() > 1 {
        return Err(io::Error::other("it has several names; remove it"));
    }
    fchown(made, Some(owner.uid()), Some(owner.gid()))
}

/// Returns the flag by which an open fails at a link.
fn nofollow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    /// Guards: files and directories have the modes that keep secrets, and one that a stop left half written is no
    /// obstacle. What root makes belongs to the owner of the directory above.
    #[test]
    fn files_are_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let above = directory.path().join("data");
        fs::create_dir(&above).unwrap();
        // Only root may give files away.
        let other = chown(&above, Some(65_534), Some(65_534)).is_ok();
        let path = above.join("made/deep/file");
        // A link to a file of somebody else is not followed.
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "").unwrap();
        fs::create_dir(above.join("linked")).unwrap();
        symlink(&elsewhere, above.join("linked/lock")).unwrap();
        lock(&above.join("linked/file")).unwrap_err();
        assert_eq!(
            fs::metadata(&elsewhere).unwrap().uid(),
            rustix::process::geteuid().as_raw()
        );
        assert!(read_if_there(&path).unwrap().is_none());
        replace(&path, "one", SECRET).unwrap();
        fs::write(path.with_extension("new"), "half").unwrap();
        drop(lock(&path).unwrap());
        replace(&path, "two", SECRET).unwrap();
        assert_eq!(read_if_there(&path).unwrap().unwrap(), b"two");
        for (name, mode) in [
            ("made", 0o700),
            ("made/deep", 0o700),
            ("made/deep/file", 0o600),
            ("made/deep/lock", 0o600),
        ] {
            let found = fs::metadata(above.join(name)).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, mode, "{name}");
            assert!(
                !other || found.uid() == 65_534,
                "{name} belongs to {}",
                found.uid()
            );
        }
    }
}
