//! One operation, with everything that it owns until its end.
//!
//! Owns: [`Operation`]: the file, the buffer, and where the result goes. Refuses: how it is done.
//!
//! Invariant: an operation ends in exactly one of [`Operation::finish`], [`Operation::finish_unsynced`],
//! [`Operation::hand_over`], [`Operation::hand_over_sync`], [`Operation::discard`] and [`Operation::abandon`]. Each
//! consumes it.

use std::io;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::queue::Weight;
use crate::buffer::Buffer;
use crate::io::errno::{operation_error, sync_error};
use crate::io::threads::closing::Unused;
use crate::io::threads::counts::OperationCounts;
use crate::io::threads::file::{Access, Handle};
use crate::io::threads::pool::{Blocking, Pool};
use crate::io::{Call, IoError, IoResult};

/// Where a result goes. The other end may be gone.
type Reply<T> = oneshot::Sender<IoResult<T>>;

/// What is done.
#[derive(Debug)]
pub(super) enum Task {
    Read {
        buffer: Buffer,
        reply: Reply<(Buffer, usize)>,
    },
    Write {
        slices: Vec<Bytes>,
        reply: Reply<usize>,
        /// Whether all is synced once all is written.
        sync: bool,
    },
    Sync {
        reply: Reply<()>,
    },
}

/// An operation that waits or is under way.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) call: Call,
    pub(super) file: Handle,
    pub(super) offset: u64,
    pub(super) task: Task,
}

impl Operation {
    /// Returns what it counts for.
    pub(super) fn weight(&self) -> Weight {
        let bytes = match &self.task {
            Task::Read { buffer, .. } => buffer.room(),
            Task::Write { slices, .. } => slices.iter().map(Bytes::len).sum(),
            Task::Sync { .. } => 0,
        };
        Weight {
            class: self.call.class,
            client: self.call.client,
            bytes,
            blocks: !matches!(self.task, Task::Read { .. }),
        }
    }

    /// Returns whether nobody waits for it any more, so that it need not begin. Only a read is not begun then: the
    /// bytes of a write, and what a sync makes durable, matter to others.
    pub(super) fn is_unwanted(&self) -> bool {
        matches!(&self.task, Task::Read { reply, .. } if reply.is_closed())
    }

    /// Returns whether the threads may do what ended with this error: the ring did not do it, and a second attempt does
    /// no harm. A sync that was begun is never repeated.
    pub(super) fn may_hand_over(&self, errno: Errno) -> bool {
        let is_past_cache =
            matches!(self.task, Task::Read { .. }) && self.file.access() != Access::Cached;
        match errno {
            // No worker could be started, so it was not begun.
            Errno::CANCELED => true,
            // Interrupted; it would have to wait; forbidden or unknown in a ring.
            Errno::INTR | Errno::AGAIN | Errno::OPNOTSUPP | Errno::PERM | Errno::NOSYS => {
                !matches!(self.task, Task::Sync { .. })
            }
            // The file system accepted direct I/O at the open only; the threads find another way, and may have found it
            // for another read meanwhile.
            Errno::INVAL => is_past_cache,
            _ => false,
        }
    }

    /// Ends it with the result of its transfer, or of its sync.
    pub(super) fn finish(self, done: Result<usize, Errno>, pool: &Pool, counts: &OperationCounts) {
        let class = self.call.class;
        close(self.file, pool);
        match self.task {
            Task::Read { mut buffer, reply } => {
                let result = done.map_err(operation_error).map(|count| {
                    buffer.advance(count);
                    (buffer, count)
                });
                counts.count(class, &result);
                drop(reply.send(result));
            }
            Task::Write { reply, .. } => {
                let result = done.map_err(operation_error);
                counts.count(class, &result);
                drop(reply.send(result));
            }
            Task::Sync { reply } => {
                let result = done.map(drop).map_err(sync_error);
                counts.count(class, &result);
                drop(reply.send(result));
            }
        }
    }

    /// Ends a write whose sync failed.
    pub(super) fn finish_unsynced(self, errno: Errno, pool: &Pool, counts: &OperationCounts) {
        close(self.file, pool);
        if let Task::Write { reply, .. } = self.task {
            let result = Err(sync_error(errno));
            counts.count(self.call.class, &result);
            drop(reply.send(result));
        }
    }

    /// Lets the threads do it.
    pub(super) fn hand_over(self, pool: &Pool) {
        let (call, file, offset) = (self.call, self.file, self.offset);
        match self.task {
            Task::Read { buffer, reply } => {
                pool.run_read_into(call, reply, move || file.read(offset, buffer));
            }
            Task::Write {
                slices,
                reply,
                sync: false,
            } => pool.run_into(call, Blocking::Transfer, reply, move || {
                file.write(offset, &slices)
            }),
            Task::Write {
                slices,
                reply,
                sync: true,
            } => pool.run_into(call, Blocking::Sync, reply, move || {
                file.write_and_sync(offset, &slices)
            }),
            Task::Sync { reply } => {
                pool.run_into(call, Blocking::Sync, reply, move || file.sync());
            }
        }
    }

    /// Lets the threads sync a write of which all `count` bytes are written.
    pub(super) fn hand_over_sync(self, count: usize, pool: &Pool) {
        if let Task::Write { reply, .. } = self.task {
            let file = self.file;
            pool.run_into(self.call, Blocking::Sync, reply, move || {
                file.sync().map(|()| count)
            });
        }
    }

    /// Ends what was not begun, because nobody waits for it.
    pub(super) fn discard(self, pool: &Pool) {
        close(self.file, pool);
    }

    /// Tells the caller that it never ended, and returns what the kernel may still use.
    pub(super) fn abandon(self) -> impl Sized {
        let never = || io::Error::new(io::ErrorKind::TimedOut, "the kernel did not end it");
        match self.task {
            Task::Read { buffer, reply } => {
                drop(reply.send(Err(IoError::Failed(never()))));
                (Some(buffer), Vec::new(), self.file)
            }
            Task::Write {
                slices,
                reply,
                sync,
            } => {
                let error = if sync {
                    IoError::SyncFailed(never())
                } else {
                    IoError::Failed(never())
                };
                drop(reply.send(Err(error)));
                (None, slices, self.file)
            }
            Task::Sync { reply } => {
                drop(reply.send(Err(IoError::SyncFailed(never()))));
                (None, Vec::new(), self.file)
            }
        }
    }
}

/// Releases a file, before the caller learns the result and may wait until it is closed. If its owner dropped it
/// meanwhile, it is closed where closing may take long.
fn close(file: Handle, pool: &Pool) {
    if let Some(descriptor) = file.into_descriptor() {
        pool.close(Unused::new(descriptor.into(), None));
    }
}
