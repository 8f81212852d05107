//! The class, the call site and the client that every operation of the seam carries.
//!
//! Owns: [`Class`], [`Call`]. Refuses: how a backend uses them.

use std::panic::Location;

use crate::vocabulary::ClientId;

/// The purpose of an operation. It selects the threads that run it and their order, labels the metrics, and is how
/// tests inject errors and count coverage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Frames of the journal; its files and their removal.
    Journal,
    /// Small blobs that a commit waits for: the shared segment.
    CommitData,
    /// Bytes that a client waits for.
    ForegroundRead,
    /// Bytes of large uploads, and their logs.
    UploadWrite,
    /// Names: listing and syncing directories, removing other files; the lock; free space.
    Directory,
    /// Checkpoints, `fsck`, and reads of an open.
    Background,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 6] = [
        Self::Journal,
        Self::CommitData,
        Self::ForegroundRead,
        Self::UploadWrite,
        Self::Directory,
        Self::Background,
    ];

    /// Returns the name in metrics and tables.
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

    /// Returns the call of this class from the caller's source line. It is written in the operation's own arguments, so
    /// that the line shows which operation it is.
    #[track_caller]
    pub const fn call(self) -> Call {
        Call {
            class: self,
            site: Location::caller(),
            client: ClientId::ENGINE,
        }
    }
}

/// The purpose of one operation, the line of the engine that starts it, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call {
    /// Class of the operation.
    pub class: Class,
    /// Source line of the call.
    pub site: &'static Location<'static>,
    /// Of one class, clients take turns.
    pub client: ClientId,
}

impl Call {
    /// Returns the same operation for a client.
    #[must_use]
    pub const fn for_client(self, client: ClientId) -> Self {
        Self { client, ..self }
    }
}
