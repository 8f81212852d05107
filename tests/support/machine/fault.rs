//! What goes wrong, and how often: policy only, the disk carries it out.

use std::path::Path;

use super::prng::Prng;

/// Code of a drive's error.
pub const EIO: i32 = 5;
/// Code of a full file system.
pub const ENOSPC: i32 = 28;
/// Code of a quota that is used up.
pub const EDQUOT: i32 = 122;
/// Code of a process that has too many files open.
pub const EMFILE: i32 = 24;
/// Code of a call that a signal interrupted.
pub const EINTR: i32 = 4;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// Bytes into a file.
    Write,
    /// Data of a file made durable.
    SyncData,
    /// Entries of a directory made durable.
    SyncDir,
    /// A file's name made.
    Create,
    /// A directory's name made.
    CreateDir,
    /// A file's name removed.
    Unlink,
    /// Size set.
    SetLen,
    /// Space reserved.
    Allocate,
    /// Bytes out of a file.
    Read,
    /// A file opened that was there.
    Open,
    /// Names listed.
    List,
    /// A lock tried.
    Lock,
    /// Size or free space asked, writeback hinted.
    Ask,
}

impl OpKind {
    /// Whether it makes something durable.
    pub(super) fn is_sync(self) -> bool {
        matches!(self, Self::SyncData | Self::SyncDir)
    }

    /// Whether the machine can be stopped right after this operation.
    pub fn is_crash_point(self) -> bool {
        use OpKind::{Allocate, Create, CreateDir, SetLen, SyncData, SyncDir, Unlink, Write};
        matches!(
            self,
            Write | SyncData | SyncDir | Create | CreateDir | Unlink | SetLen | Allocate
        )
    }
}

/// When a fault strikes, among the operations it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Once: at the n-th of them from now, counted from 1.
    Nth(u64),
    /// Each time, with this chance of 100.
    Percent(u8),
}

/// An error that some operations meet.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which kind of operation.
    pub kind: OpKind,
    /// Only on paths that contain this; empty is all.
    pub path: String,
    /// How often.
    pub when: When,
    /// Code the operation fails with.
    pub errno: i32,
    /// Whether it was begun; if not, it has no effect at all.
    pub attempted: bool,
    /// It does not fail: a read or a map gives bytes of which one bit is wrong. The disk keeps the right ones.
    pub flips: bool,
}

impl Fault {
    /// The n-th operation of a kind from now fails with EIO.
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

    /// Each operation of a kind fails with EIO, with a chance of `percent` in 100.
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

    /// Only on paths that contain `part`.
    pub fn on(mut self, part: &str) -> Self {
        part.clone_into(&mut self.path);
        self
    }

    /// With another code than EIO.
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.errno = errno;
        self
    }

    /// The operation is not even begun: there was no descriptor, thread or memory for it.
    pub fn not_attempted(mut self) -> Self {
        (self.errno, self.attempted) = (EMFILE, false);
        self
    }

    /// Gives wrong bytes in place of an error; for reads and maps.
    pub fn flipping(mut self) -> Self {
        self.flips = true;
        self
    }

    /// Whether it strikes now; counts down.
    pub(super) fn strikes(&mut self, kind: OpKind, path: &Path, prng: &mut Prng) -> bool {
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

/// What a fault does to the operation that it strikes.
pub(super) struct Struck {
    pub(super) errno: i32,
    pub(super) attempted: bool,
}

/// What every disk may do without being broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    /// Chance in 100 that a read or write moves fewer bytes than it could.
    pub short: u8,
    /// Chance in 100 that a cached read finds nothing resident.
    pub would_block: u8,
    /// Chance in 100 that an operation waits for some milliseconds before it takes effect, while others overtake it.
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
    /// Whole transfers, everything resident.
    pub const NONE: Self = Self {
        short: 0,
        would_block: 0,
        stall: 0,
    };
}
