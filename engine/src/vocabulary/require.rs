//! What a commit may demand of the state it is applied to.
//!
//! Owns: [`Require`]. Refuses: judging it (`commit::resolve`).

use bytes::Bytes;

use super::Digest;

/// Something that must hold at commit, judged against all transactions queued before this one.
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
        /// What it must have for attributes.
        attributes: Bytes,
    },
    /// The tag points at this manifest; `None`: the tag does not exist.
    Tag {
        /// The tag.
        tag: String,
        /// What it must point at.
        digest: Option<Digest>,
    },
    /// The tag exists, wherever it points.
    TagExists(String),
    /// The blob's bytes are in the store, in whatever repository.
    Stored(Digest),
}
