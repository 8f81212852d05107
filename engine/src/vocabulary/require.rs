//! The preconditions of a commit.
//!
//! Owns: [`Require`]. Refuses: checking them (`commit::resolve`).

use bytes::Bytes;

use super::Digest;

/// A precondition of a commit, checked against the state that includes all transactions queued before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Require {
    /// The repository exists.
    Repository,
    /// The blob is linked into the repository.
    Linked(Digest),
    /// The blob is linked into another repository (mount).
    LinkedIn {
        /// The other repository's name.
        repository: String,
        /// The blob.
        digest: Digest,
    },
    /// The repository has this manifest.
    Manifest(Digest),
    /// The repository does not have this manifest, or has it with these attributes.
    Attributes {
        /// The manifest.
        digest: Digest,
        /// Attributes that it must have.
        attributes: Bytes,
    },
    /// The tag points at this manifest; `None`: the tag does not exist.
    Tag {
        /// The tag.
        tag: String,
        /// Manifest that it must point at.
        digest: Option<Digest>,
    },
    /// The tag exists, wherever it points.
    TagExists(String),
    /// The blob's bytes are in the store, in any repository.
    Stored(Digest),
}
