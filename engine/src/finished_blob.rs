//! Bytes that wait for a commit, and what the commit returns.
//!
//! Owns: [`FinishedBlob`], `CommitListener`, [`Committed`].
//! Refuses: deciding anything; `commit` judges and applies.

use crate::digest::Digest;
use crate::extent::{Extent, Lsn};
use crate::lease::Pin;

/// A batch that is durable and visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Its position in the journal.
    pub lsn: Lsn,
}

/// Learns that a transaction which names a blob is durable; dropped unheard, that no commit came of it.
pub(crate) trait CommitListener: Send + Sync + std::fmt::Debug {
    /// The transaction is durable and visible, and its committer is not answered yet.
    fn committed(self: Box<Self>);
}

/// Bytes that are hashed, on disk and synced, but that no transaction names yet. Dropped without a
/// commit, they are reclaimed. Pins the digest until then.
#[derive(Debug)]
pub struct FinishedBlob {
    pub(crate) digest: Digest,
    pub(crate) length: u64,
    pub(crate) extent: Extent,
    /// Unlinks a dedicated segment that was never committed.
    pub(crate) abandon: Option<crate::segment::AbandonGuard>,
    pub(crate) pin: Pin,
    pub(crate) listener: Option<Box<dyn CommitListener>>,
}

impl FinishedBlob {
    /// Digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Their count.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where they are.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// A durable transaction names the bytes now: keep them.
    pub(crate) fn committed(mut self) {
        if let Some(guard) = self.abandon.take() {
            guard.keep();
        }
        self.spared();
    }

    /// A durable transaction names the same content elsewhere: these bytes go.
    pub(crate) fn spared(self) {
        drop((self.pin, self.abandon));
        if let Some(listener) = self.listener {
            listener.committed();
        }
    }
}
