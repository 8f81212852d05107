//! The lock on a store: flock on its directory, and on its superblock.
//!
//! Owns: taking the lock, naming its holder, releasing it by closing; the check that the name still leads to the locked
//! file. Refuses: lock files. A lock file can be deleted or replaced while it is locked, and then a second process
//! locks another file.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, FlockOperation, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::resolve::{LockedRoots, ResolvedPath};
use crate::io::{LockAttempt, LockGuard};

/// Attempts to take the lock. A process that was just killed may hold its lock until its last operation in the kernel
/// ends.
const ATTEMPTS: usize = 10;
/// Time between attempts; all of them together stay under half a second.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(40);

/// A lock that is held. It is released by closing the descriptor, which no child process inherits.
#[derive(Debug)]
struct Held {
    descriptor: Arc<OwnedFd>,
    roots: Arc<LockedRoots>,
}

impl LockGuard for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.roots.forget(&self.descriptor);
    }
}

/// Locks the directory or file at `path`. While a directory is locked, `roots` resolves names below it.
pub(super) fn try_lock(
    place: &ResolvedPath,
    path: PathBuf,
    roots: Arc<LockedRoots>,
) -> io::Result<LockAttempt> {
    let descriptor = place.open_any(OFlags::RDONLY)?;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
        let operation = FlockOperation::NonBlockingLockExclusive;
        match retry_on_intr(|| rustix::fs::flock(&descriptor, operation)) {
            Ok(()) => {
                let kind = check_identity(place, &descriptor)?;
                let descriptor = Arc::new(descriptor);
                if kind == FileType::Directory {
                    roots.hold(path, &descriptor);
                }
                return Ok(LockAttempt::Held(Box::new(Held { descriptor, roots })));
            }
            Err(Errno::WOULDBLOCK) => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Ok(LockAttempt::Taken(holder(&descriptor)))
}

/// Returns the type of the locked file, after a check that the name still leads to it. It may have been replaced
/// between the open and the lock.
fn check_identity(place: &ResolvedPath, descriptor: &OwnedFd) -> io::Result<FileType> {
    let locked = retry_on_intr(|| rustix::fs::fstat(descriptor))?;
    let named = place.stat()?;
    if (locked.st_dev, locked.st_ino) == (named.st_dev, named.st_ino) {
        return Ok(FileType::from_raw_mode(locked.st_mode));
    }
    let what = "it was replaced while it was being locked";
    Err(io::Error::new(io::ErrorKind::ResourceBusy, what))
}

/// Returns the holder's pid from the kernel's list of locks. `None` where it is not listed (a holder in another pid
/// namespace).
fn holder(descriptor: &OwnedFd) -> Option<u32> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let stat = retry_on_intr(|| rustix::fs::fstat(descriptor.as_fd())).ok()?;
    pid_in(&locks, &stat)
}

/// Returns the pid of the only flock on the inode of `stat`. Some file systems show another device number than `stat`
/// has.
fn pid_in(locks: &str, stat: &Stat) -> Option<u32> {
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let device = format!("{major:02x}:{minor:02x}");
    let inode = stat.st_ino.to_string();
    let on_inode = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = fields.as_slice() else {
            return None;
        };
        let (found, number) = place.rsplit_once(':')?;
        (number == inode).then_some((found == device, pid.parse().ok()?))
    });
    let found: Vec<(bool, u32)> = on_inode.collect();
    let exact = found.iter().find(|(same_device, _)| *same_device);
    let only = (found.len() == 1).then(|| found.first()).flatten();
    exact.or(only).map(|(_, pid)| *pid)
}
