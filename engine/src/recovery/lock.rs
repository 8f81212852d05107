//! The lock on a store: one process at a time.
//!
//! Owns: the order of locks: the directory itself, then the superblock. Refuses: a file whose only purpose is to be
//! locked, because deleting it would let a second process open the store.
//!
//! Both are needed. The directory stays the same when it is moved, or mounted at a second place. The superblock is the
//! same file in a copy made of hard links, whose journal and segments are shared with the original.

use std::path::Path;

use super::superblock::SUPERBLOCK;
use crate::error::{Error, Result};
use crate::io::{Class, Io, LockAttempt, LockGuard};

/// Both locks on a store; released when dropped.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _directory: DirectoryLock,
    _superblock: Box<dyn LockGuard>,
}

/// The lock on a directory in which there may be no store yet.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _guard: Box<dyn LockGuard>,
}

impl DirectoryLock {
    /// Locks the directory `store`, which exists.
    pub(crate) async fn take(io: &dyn Io, store: &Path) -> Result<Self> {
        Ok(Self {
            _guard: take(io, store, store).await?,
        })
    }

    /// Locks the superblock too.
    pub(crate) async fn with_superblock(self, io: &dyn Io, store: &Path) -> Result<StoreLock> {
        Ok(StoreLock {
            _superblock: take(io, store, &store.join(SUPERBLOCK)).await?,
            _directory: self,
        })
    }
}

async fn take(io: &dyn Io, store: &Path, path: &Path) -> Result<Box<dyn LockGuard>> {
    let attempt = io.lock(Class::Directory.call(), path).await;
    match attempt.map_err(|source| Error::io("lock", path, source))? {
        LockAttempt::Held(guard) => Ok(guard),
        LockAttempt::Taken(pid) => Err(Error::Locked {
            path: store.to_path_buf(),
            pid,
        }),
    }
}
