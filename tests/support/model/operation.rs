//! Operations of a client of a store, as histories have them.
//!
//! Contents and manifests have numbers (`content`), repositories have names. A new kind of transaction is a variant
//! here, an arm of [`super::state::Model::apply`], one of [`super::drive`], and a weight in [`super::generate`].

use std::time::Duration;

use tonnage_engine::Digest;

/// One call of a client on one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The repository.
    pub repository: String,
    /// The operation.
    pub operation: Operation,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Uploads a content and links it.
    Push {
        /// The content.
        content: u32,
        /// How it is sent.
        how: How,
    },
    /// Puts a manifest over linked contents, optionally with a subject and a tag.
    Manifest {
        /// The manifest.
        number: u32,
        /// Its children, which it keeps alive.
        children: Vec<u32>,
        /// Manifests that it lists too, present or not, its own subject among them.
        manifests: Vec<u32>,
        /// The manifest to which it refers, which may be absent.
        subject: Option<u32>,
        /// The tag set with it.
        tag: Option<String>,
    },
    /// Points a tag at a manifest; with `old`, only if it points there now (`None`: if it is absent).
    Tag {
        /// The tag.
        tag: String,
        /// The manifest.
        number: u32,
        /// The manifest to which it must point.
        old: Option<Option<u32>>,
    },
    /// Points many tags at a manifest in one transaction.
    TagMany {
        /// Their number; the names have the maximum length.
        count: u32,
        /// The manifest.
        number: u32,
    },
    /// Removes a tag.
    Untag(String),
    /// Deletes a manifest with its tags.
    DeleteManifest(u32),
    /// Deletes a repository with everything in it.
    DeleteRepository,
    /// Unlinks a content.
    Unlink(u32),
    /// Links a content of another repository.
    Mount {
        /// The content.
        content: u32,
        /// The other repository.
        from: String,
    },
    /// Sends a part of a content and leaves the upload open.
    Leave {
        /// The content.
        content: u32,
        /// The part that is sent, in percent.
        percent: u8,
    },
    /// Continues an upload that was left, and commits it.
    Resume,
    /// Cancels an upload that was left.
    Cancel,
    /// Checks whether a content exists; the answer leases it.
    Head(u32),
    /// Reads a part of a content, from and to in percent.
    Read(u32, u8, u8),
    /// Collects garbage. As a transaction, it removes these contents and manifests.
    Collect(Vec<Digest>),
    /// The other transaction of a collection: removes these manifests of repositories. No client makes this call.
    CollectManifests(Vec<(String, Digest)>),
    /// Writes a checkpoint.
    Checkpoint,
    /// Verifies all live blobs on the drive, with their digests or without.
    Scrub(bool),
    /// Waits.
    Wait(Duration),
}

/// How a content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct How {
    /// The length is announced.
    pub announced: bool,
    /// The first finish names a wrong digest.
    pub wrong_digest: bool,
    /// In the middle, other bytes are sent and rolled back.
    pub rolled_back: bool,
    /// In the middle, another request takes the turn.
    pub taken_over: bool,
}

/// Returns the name of one of many tags.
pub fn many_tag(number: u32) -> String {
    format!("{number:0128}")
}

impl Operation {
    /// Returns its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Push { .. } => "push",
            Self::Manifest {
                subject: Some(_), ..
            } => "put referrer",
            Self::Manifest { .. } => "put manifest",
            Self::Tag { old: Some(_), .. } => "compare and set tag",
            Self::Tag { .. } => "set tag",
            Self::TagMany { .. } => "set many tags",
            Self::Untag(_) => "delete tag",
            Self::DeleteManifest(_) => "delete manifest",
            Self::DeleteRepository => "delete repository",
            Self::Unlink(_) => "unlink",
            Self::Mount { .. } => "mount",
            Self::Leave { .. } => "leave upload",
            Self::Resume => "resume upload",
            Self::Cancel => "cancel upload",
            Self::Head(_) => "head",
            Self::Read(..) => "read",
            Self::Collect(_) => "collect",
            Self::CollectManifests(_) => "collect manifests",
            Self::Checkpoint => "checkpoint",
            Self::Scrub(_) => "scrub",
            Self::Wait(_) => "wait",
        }
    }
}
