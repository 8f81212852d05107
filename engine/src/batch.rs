//! What a commit is made of: preconditions and changes on one repository, applied together or not at all.
//!
//! Owns: [`Batch`], [`Change`], [`Committed`], [`FinishedBlob`].
//! Refuses: deciding anything; `commit` judges and applies.

use crate::digest::Digest;
use crate::entry::{ManifestEntry, Origin};
use crate::extent::{Extent, Lsn};
use crate::lease::Pin;
use crate::require::Require;

/// One change. All of a batch become durable and visible together.
#[derive(Debug)]
pub enum Change {
    /// Makes finished bytes a blob of the store. A no-op where the blob is already there intact.
    Place(FinishedBlob),
    /// Makes a blob visible in the repository.
    Link(Digest),
    /// Takes a blob's visibility in the repository away.
    Unlink(Digest),
    /// Adds or replaces a manifest of the repository; its bytes are a blob of the store.
    PutManifest(ManifestEntry),
    /// Removes a manifest and every tag of the repository that points at it.
    DeleteManifest(Digest),
    /// Points a tag at a manifest of the repository.
    SetTag {
        /// The tag.
        tag: String,
        /// The manifest.
        digest: Digest,
    },
    /// Removes a tag.
    DeleteTag(String),
    /// Removes the repository with everything that has a name in it; no later change of the batch finds it. What is pushed to the
    /// name from then on makes another repository.
    DeleteRepository,
}

/// Changes of one repository, with what must hold for them.
#[derive(Debug)]
pub struct Batch {
    /// The repository's name.
    pub repository: String,
    /// Whether a missing repository is created; otherwise the batch is [`crate::Error::Unmet`].
    pub create_repository: bool,
    /// All must hold, or nothing changes.
    pub requires: Vec<Require>,
    /// Applied in order.
    pub changes: Vec<Change>,
    /// Who asked.
    pub origin: Origin,
}

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
