//! Whether `io_uring` works here.
//!
//! Owns: [`run`], real operations on a new ring, and [`Unavailable`], why it cannot be used. Refuses: guesses from the
//! version of the kernel. Container runtimes and a sysctl forbid `io_uring` on kernels that have it.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::operation::{Operation, Task};
use super::ring::{Ended, Ring};
use crate::buffer::Buffer;
use crate::io::Class;
use crate::io::threads::file::Handle;

/// How long an operation of the probe may take, which takes microseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes that are written and read back.
const CONTENT: &[u8] = b"written and read back by io_uring";

/// Why `io_uring` cannot be used.
#[derive(Debug)]
pub struct Unavailable {
    step: &'static str,
    cause: io::Error,
}

impl Unavailable {
    pub(super) fn new(step: &'static str, errno: Errno) -> Self {
        Self::of(step, errno.into())
    }

    pub(super) fn of(step: &'static str, cause: io::Error) -> Self {
        Self { step, cause }
    }

    /// Returns what an operator can do about it.
    pub fn hint(&self) -> &'static str {
        match Errno::from_io_error(&self.cause) {
            Some(Errno::PERM | Errno::ACCESS) => {
                "the seccomp profile of the container or the sysctl kernel.io_uring_disabled forbids it; allow io_uring_setup, io_uring_enter and io_uring_register there"
            }
            Some(Errno::NOSYS) => "the kernel does not have it, or is older than Linux 5.11",
            Some(Errno::NOMEM) => {
                "raise the limit on locked memory (ulimit -l), or the memory limit of the container"
            }
            Some(Errno::MFILE | Errno::NFILE) => "raise the limit on open files: ulimit -n",
            _ => "Linux 6.1 or newer is known to work",
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring could not {}: {}", self.step, self.cause)
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Writes, syncs and reads a file in memory through a ring.
pub(super) fn run(ring: &mut Ring) -> Result<(), Unavailable> {
    let created = rustix::fs::memfd_create("tonnage-probe", MemfdFlags::CLOEXEC);
    let created = created.map_err(|errno| Unavailable::new("create a file in memory", errno))?;
    let file = Handle::new(created);
    let (write, read) = ("write and sync a file", "read a file");
    let task = Task::Write {
        slices: vec![Bytes::from_static(CONTENT)],
        reply: oneshot::channel().0,
        sync: true,
    };
    one(ring, &file, task, write)?;
    let task = Task::Read {
        buffer: Buffer::unpooled(CONTENT.len()),
        reply: oneshot::channel().0,
    };
    let read_back = match one(ring, &file, task, read)?.task {
        Task::Read { mut buffer, .. } => buffer.free_mut() == CONTENT,
        Task::Write { .. } | Task::Sync { .. } => false,
    };
    if read_back {
        return Ok(());
    }
    let other = io::Error::new(io::ErrorKind::InvalidData, "other bytes than were written");
    Err(Unavailable::of(read, other))
}

/// Does one operation on `CONTENT`.
fn one(
    ring: &mut Ring,
    file: &Handle,
    task: Task,
    step: &'static str,
) -> Result<Operation, Unavailable> {
    let failed = |errno| Unavailable::new(step, errno);
    let operation = Operation {
        call: Class::Background.call(),
        file: file.clone(),
        offset: 0,
        task,
    };
    let weight = operation.weight();
    ring.start(operation, weight);
    let mut ended = Vec::new();
    while ended.is_empty() {
        if !ring.enter(Some(LIMIT)).map_err(failed)? {
            return Err(failed(Errno::TIMEDOUT));
        }
        ring.take_ended(&mut ended).map_err(failed)?;
    }
    match ended.pop() {
        Some(Ended::Done(operation, _, Ok(count))) if count == CONTENT.len() => Ok(operation),
        Some(Ended::Done(_, _, Err(errno)) | Ended::Unsynced(_, _, errno)) => Err(failed(errno)),
        Some(Ended::Written(..)) => Err(failed(Errno::CANCELED)),
        Some(Ended::Done(..)) | None => {
            let short = io::Error::new(io::ErrorKind::UnexpectedEof, "a short transfer");
            Err(Unavailable::of(step, short))
        }
    }
}
