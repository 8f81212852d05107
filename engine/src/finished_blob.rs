//! Bytes that wait for a commit, and the result of the commit.
//!
//! Owns: [`FinishedBlob`], [`CommitListener`], [`Committed`]. Refuses: decisions; `commit` checks and applies.

use std::sync::Arc;

use crate::digest::Digest;
use crate::extent::{Extent, Lsn};
use crate::lease::Pin;
use crate::segment::SegmentInUse;

/// A batch that is durable and visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Its position in the journal.
    pub lsn: Lsn,
}

/// A callback for the commit of a blob; dropped uncalled if no commit came of it.
pub(crate) trait CommitListener: Send + Sync + std::fmt::Debug {
    /// Called when the transaction that names the blob is durable and visible, before its committer is answered.
    fn committed(self: Box<Self>);
}

/// Bytes that are hashed, on disk and synced, but that no transaction names yet. Their digest is pinned until the
/// commit. If it is dropped without a commit, they are reclaimed.
#[derive(Debug)]
pub struct FinishedBlob {
    pub(crate) digest: Digest,
    pub(crate) length: u64,
    pub(crate) extent: Extent,
    /// Unlinks a dedicated segment that was never committed.
    pub(crate) abandon: Option<crate::segment::AbandonGuard>,
    /// Keeps a shared segment from being removed before the commit.
    pub(crate) in_use: Option<Arc<SegmentInUse>>,
    pub(crate) pin: Pin,
    pub(crate) listener: Option<Box<dyn CommitListener>>,
}

impl FinishedBlob {
    /// Returns the digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the number of bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns where the bytes are.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Keeps the bytes: a durable transaction names them.
    pub(crate) fn committed(mut self) {
        if let Some(guard) = self.abandon.take() {
            guard.keep();
        }
        self.end_commit();
    }

    /// Reports that the commit is durable, and drops the bytes unless they are kept. For content that the store has
    /// elsewhere.
    pub(crate) fn end_commit(self) {
        drop((self.pin, self.abandon, self.in_use));
        if let Some(listener) = self.listener {
            listener.committed();
        }
    }
}
