//! Faults and how often they occur: policy only; the disk carries it out.

use std::path::Path;

use super::prng::Prng;

/// The error code of a drive's error.
pub const EIO: i32 = 5;
/// The error code of a full file system.
pub const ENOSPC: i32 = 28;
/// The error code of an exhausted quota.
pub const EDQUOT: i32 = 122;
/// The error code of a process with too many open files.
pub const EMFILE: i32 = 24;
/// The error code of a call that a signal interrupted.
pub const EINTR: i32 = 4;

/// The kind of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// A write to a file.
    Write,
    /// A sync of a file's data.
    SyncData,
    /// A sync of a directory.
    SyncDir,
    /// The creation of a file.
    Create,
    /// The creation of a directory.
    CreateDir,
    /// The removal of a file's name.
    Unlink,
    /// A change of a file's size.
    SetLen,
    /// An allocation of space.
    Allocate,
    /// A read from a file.
    Read,
    /// An open of an existing file.
    Open,
    /// A list of names.
    List,
    /// An attempt to lock.
    Lock,
    /// A query of size or free space, or a writeback hint.
    Ask,
}

impl OpKind {
    /// Returns whether it makes something durable.
    pub(super) fn is_sync(self) -> bool {
        matches!(self, Self::SyncData | Self::SyncDir)
    }

    /// Returns whether the machine can be stopped right after this operation.
    pub fn is_crash_point(self) -> bool {
        use OpKind::{Allocate, Create, CreateDir, SetLen, SyncData, SyncDir, Unlink, Write};
        matches!(
            self,
            Write | SyncData | SyncDir | Create | CreateDir | Unlink | SetLen | Allocate
        )
    }
}

/// When a fault occurs, among the operations to which it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Once, at the n-th of them from now, counted from 1.
    Nth(u64),
    /// Each time with this probability in percent.
    Percent(u8),
}

/// A fault of some operations.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The kind of operation.
    pub kind: OpKind,
    /// Only on paths that contain this; empty means all.
    pub path: String,
    /// How often.
    pub when: When,
    /// The error code of the operation.
    pub errno: i32,
    /// Whether the operation was begun; if not, it has no effect at all.
    pub attempted: bool,
    /// The operation succeeds, but a read returns bytes with one bit flipped. The disk keeps the right ones.
    pub flips: bool,
}

impl Fault {
    /// Fails the n-th operation of a kind from now with EIO.
    pub fn nth(kind: OpKind, n: u64) -> Self {
        Self {
            kind,
            path: String::new(),
            when: When::Nth(n),
            errno: EIO,
            attempted: true,
            flips: false,
        }
    }

    /// Fails each operation of a kind with EIO, with a probability of `percent`.
    pub fn percent(kind: OpKind, percent: u8) -> Self {
        Self {
            kind,
            path: String::new(),
            when: When::Percent(percent),
            errno: EIO,
            attempted: true,
            flips: false,
        }
    }

    /// Limits the fault to paths that contain `part`.
    pub fn on(mut self, part: &str) -> Self {
        part.clone_into(&mut self.path);
        self
    }

    /// Sets another error code than EIO.
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.errno = errno;
        self
    }

    /// Makes the operation not even begin: there was no descriptor, thread or memory for it.
    pub fn not_attempted(mut self) -> Self {
        (self.errno, self.attempted) = (EMFILE, false);
        self
    }

    /// Returns wrong bytes instead of an error, for reads.
    pub fn flipping(mut self) -> Self {
        self.flips = true;
        self
    }

    /// Returns whether it occurs now, and counts down.
    pub(super) fn occurs(&mut self, kind: OpKind, path: &Path, prng: &mut Prng) -> bool {
        if kind != self.kind || !path.to_string_lossy().contains(&self.path) {
            return false;
        }
        match &mut self.when {
            When::Nth(0) => false,
            When::Nth(left) => {
                *left -= 1;
                *left == 0
            }
            When::Percent(percent) => prng.percent(*percent),
        }
    }
}

/// The effect of a fault on an operation.
pub(super) struct Struck {
    pub(super) errno: i32,
    pub(super) attempted: bool,
}

/// The variations of a disk without faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    /// Probability in percent that a read or write moves fewer bytes than it could.
    pub short: u8,
    /// Probability in percent that a cached read finds nothing resident.
    pub would_block: u8,
    /// Probability in percent that an operation waits for some milliseconds before it takes effect, while others
    /// overtake it.
    pub stall: u8,
}

impl Default for Noise {
    fn default() -> Self {
        Self {
            short: 10,
            would_block: 50,
            stall: 0,
        }
    }
}

impl Noise {
    /// No variation: whole transfers, everything resident.
    pub const NONE: Self = Self {
        short: 0,
        would_block: 0,
        stall: 0,
    };
}
