//! Names, resolved in the directory that is locked.
//!
//! Owns: [`LockedRoots`], the locked directories of this process, and [`ResolvedPath`], where an operation on a name
//! acts. Refuses: following a store's path once its directory is locked. If the directory is moved or replaced under a
//! running server, the path leads to another directory, perhaps another server's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::retry_on_intr;

/// The locked directories, each with the path by which it was locked.
#[derive(Debug, Default)]
pub(super) struct LockedRoots {
    held: Mutex<Vec<(PathBuf, Arc<OwnedFd>)>>,
}

impl LockedRoots {
    /// Resolves names below `path` in `directory` from now on.
    pub(super) fn hold(&self, path: PathBuf, directory: &Arc<OwnedFd>) {
        self.held.lock().push((path, Arc::clone(directory)));
    }

    /// Undoes [`LockedRoots::hold`].
    pub(super) fn forget(&self, directory: &Arc<OwnedFd>) {
        let mut held = self.held.lock();
        held.retain(|(_, other)| !Arc::ptr_eq(other, directory));
    }

    /// Returns where an operation on `path` acts.
    pub(super) fn resolve(&self, path: &Path) -> ResolvedPath {
        let held = self.held.lock();
        let below = held.iter().find_map(|(root, directory)| {
            let rest = path.strip_prefix(root).ok()?;
            Some((Arc::clone(directory), rest))
        });
        let Some((directory, rest)) = below else {
            return ResolvedPath {
                directory: None,
                path: path.to_owned(),
            };
        };
        let itself = rest.as_os_str().is_empty();
        ResolvedPath {
            directory: Some(directory),
            path: if itself { Path::new(".") } else { rest }.to_owned(),
        }
    }
}

/// A name in a directory.
#[derive(Debug)]
pub(super) struct ResolvedPath {
    directory: Option<Arc<OwnedFd>>,
    path: PathBuf,
}

impl ResolvedPath {
    fn directory(&self) -> BorrowedFd<'_> {
        match &self.directory {
            Some(directory) => directory.as_fd(),
            None => CWD,
        }
    }

    /// Opens a file of any type, so that no child process inherits it. Does not wait for the other end of a FIFO.
    pub(super) fn open_any(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(retry_on_intr(|| {
            rustix::fs::openat(self.directory(), &self.path, flags, mode)
        })?)
    }

    /// Opens a regular file; anything else there is an error of kind `InvalidData`.
    pub(super) fn open_file(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let descriptor = self.open_any(flags)?;
        let stat = retry_on_intr(|| rustix::fs::fstat(&descriptor))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(descriptor),
            FileType::Directory => "a directory",
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            FileType::Symlink | FileType::Unknown => "something else",
        };
        let what = format!("it is {kind}, not a regular file");
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }

    /// Opens a directory.
    pub(super) fn open_dir(&self) -> io::Result<OwnedFd> {
        self.open_any(OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Creates a directory.
    pub(super) fn create_dir(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| {
            rustix::fs::mkdirat(self.directory(), &self.path, Mode::RWXU)
        })?)
    }

    /// Removes a file's name.
    pub(super) fn unlink(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| {
            rustix::fs::unlinkat(self.directory(), &self.path, AtFlags::empty())
        })?)
    }

    /// Returns the metadata of the file that the name leads to.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        Ok(retry_on_intr(|| {
            rustix::fs::statat(self.directory(), &self.path, AtFlags::empty())
        })?)
    }
}
