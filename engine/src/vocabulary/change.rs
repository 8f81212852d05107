//! The content of a commit.
//!
//! Owns: [`Batch`] and [`Change`]. Refuses: checking and applying them (`commit`).

use super::{Digest, ManifestEntry, Origin, Require};

/// One change of a repository. All changes of a batch become durable and visible together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes a blob visible in the repository.
    Link(Digest),
    /// Removes a blob's visibility in the repository.
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
    /// Removes the repository with everything that has a name in it. No later change of the batch finds it. A later
    /// push to the name creates another repository.
    DeleteRepository,
}

/// The changes of one repository, applied together or not at all.
///
/// `S` is a store's handle of received bytes that no commit names yet. Use cases and ports use the port's type, the
/// engine its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<S> {
    /// The repository's name.
    pub repository: String,
    /// Whether a missing repository is created. Otherwise the batch is rejected with [`Require::Repository`].
    pub create_repository: bool,
    /// Actor and request that asked for it.
    pub origin: Origin,
    /// Preconditions. All must hold, or nothing changes.
    pub requires: Vec<Require>,
    /// Bytes that become blobs of the store before the first change. No effect where a blob is already stored intact.
    pub staged: Vec<S>,
    /// Changes, applied in order.
    pub changes: Vec<Change>,
}

impl<S> Batch<S> {
    /// Returns the same batch with each staged item mapped.
    pub fn map_staged<T>(self, map: impl FnMut(S) -> T) -> Batch<T> {
        let Self {
            repository,
            create_repository,
            origin,
            requires,
            staged,
            changes,
        } = self;
        Batch {
            repository,
            create_repository,
            origin,
            requires,
            staged: staged.into_iter().map(map).collect(),
            changes,
        }
    }
}
