//! What every operation of the seam carries: for what it is done, and from where.
//!
//! Owns: [`Class`], [`Call`]. Refuses: what a backend makes of them.

use std::panic::Location;

/// What an operation is for: it decides which threads do it and what they do first, labels the metrics, and is how tests choose where
/// an error strikes and count coverage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Frames of the journal, its files and their removal.
    Journal,
    /// Small blobs that a commit waits for: the shared segment.
    CommitData,
    /// Bytes that a client waits for.
    ForegroundRead,
    /// Bytes of large uploads, and their logs.
    UploadWrite,
    /// Names: directories listed and synced, other files removed; the lock, and the space that is left.
    Directory,
    /// Checkpoints, `fsck`, and what an open reads.
    Background,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Journal,
        Self::CommitData,
        Self::ForegroundRead,
        Self::UploadWrite,
        Self::Directory,
        Self::Background,
    ];

    /// Its name in metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::CommitData => "commit_data",
            Self::ForegroundRead => "foreground_read",
            Self::UploadWrite => "upload_write",
            Self::Directory => "directory",
            Self::Background => "background",
        }
    }

    /// An operation of this class, called from the line that says so: written in the operation's own list of arguments, so that
    /// the source shows which operation it is.
    #[track_caller]
    pub const fn call(self) -> Call {
        Call {
            class: self,
            site: Location::caller(),
        }
    }
}

/// What one operation is for, and which line of the engine asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// What for.
    pub class: Class,
    /// From where.
    pub site: &'static Location<'static>,
}
