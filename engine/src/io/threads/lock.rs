//! The store's lock: flock on a file that says who holds it.
//!
//! Owns: taking, naming the holder, releasing by closing.
//! Refuses: removing the file; a name that comes and goes could be locked twice.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::open_file;
use crate::io::{LockAttempt, LockGuard};

/// A process that was killed a moment ago may hold its lock until its last operation in the kernel ends.
const ATTEMPTS: usize = 10;
/// Time between attempts; all of them together stay under half a second.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(40);
/// More digits than any pid has.
const PID_BYTES_MAX: usize = 16;

/// Released by closing: the descriptor is not shared and no child inherits it.
#[derive(Debug)]
struct Held {
    _descriptor: OwnedFd,
}

impl LockGuard for Held {}

pub(super) fn try_lock(path: &Path) -> io::Result<LockAttempt> {
    let descriptor = open_file(path, OFlags::RDWR | OFlags::CREATE)?;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
        let operation = FlockOperation::NonBlockingLockExclusive;
        match retry_on_intr(|| rustix::fs::flock(&descriptor, operation)) {
            Ok(()) => {
                write_pid(&descriptor)?;
                return Ok(LockAttempt::Held(Box::new(Held {
                    _descriptor: descriptor,
                })));
            }
            Err(Errno::WOULDBLOCK) => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Ok(LockAttempt::Taken(read_pid(&descriptor)?))
}

fn write_pid(descriptor: &OwnedFd) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    retry_on_intr(|| rustix::fs::ftruncate(descriptor, 0))?;
    let count = retry_on_intr(|| rustix::io::pwrite(descriptor, text.as_bytes(), 0))?;
    if count == text.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// The holder's pid; `None` while it has not written it yet, or where the text is no pid.
fn read_pid(descriptor: &OwnedFd) -> io::Result<Option<u32>> {
    let mut text = [0; PID_BYTES_MAX];
    let count = retry_on_intr(|| rustix::io::pread(descriptor, &mut text[..], 0))?;
    let text = std::str::from_utf8(text.get(..count).unwrap_or_default()).unwrap_or_default();
    Ok(text.trim().parse().ok())
}
