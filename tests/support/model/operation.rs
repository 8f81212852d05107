//! What a client of a store may do, as histories say it.
//!
//! Contents and manifests go by number (`content`), repositories by name. A new kind of transaction is a variant here, an arm of
//! [`super::state::Model::apply`], one of [`super::drive`] and a weight in [`super::generate`].

use std::time::Duration;

/// One call of a client on one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The repository.
    pub repository: String,
    /// What is done there.
    pub operation: Operation,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Uploads a content and links it.
    Push {
        /// Which.
        content: u32,
        /// How it is sent.
        how: How,
    },
    /// Puts a manifest over contents that are linked, perhaps with a subject and a tag.
    Manifest {
        /// Which.
        number: u32,
        /// What it keeps alive.
        children: Vec<u32>,
        /// The manifest it refers to, which may be absent.
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
        /// What it must point at.
        old: Option<Option<u32>>,
    },
    /// Points as many tags at a manifest, all in one transaction.
    TagMany {
        /// How many; their names are as long as names may be.
        count: u32,
        /// The manifest.
        number: u32,
    },
    /// Removes a tag.
    Untag(String),
    /// Removes a manifest with its tags.
    DeleteManifest(u32),
    /// Removes a repository with everything in it.
    DeleteRepository,
    /// Takes a content's visibility away.
    Unlink(u32),
    /// Links a content that another repository has.
    Mount {
        /// Which.
        content: u32,
        /// The other repository.
        from: String,
    },
    /// Sends a part of a content and leaves the upload open.
    Leave {
        /// Which.
        content: u32,
        /// How much of it, in percent.
        percent: u8,
    },
    /// Goes on with an upload that was left, and commits it.
    Resume,
    /// Ends an upload that was left.
    Cancel,
    /// Asks whether a content is there: the answer leases it.
    Head(u32),
    /// Reads a part of a content, from and to in percent.
    Read(u32, u8, u8),
    /// Writes a checkpoint.
    Checkpoint,
    /// Lets time pass.
    Wait(Duration),
}

/// How a content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct How {
    /// Its length is announced.
    pub announced: bool,
    /// The first finish names a wrong digest.
    pub wrong_digest: bool,
    /// In the middle, other bytes are sent and taken back.
    pub taken_back: bool,
    /// In the middle another request takes over from the first.
    pub taken_over: bool,
}

/// The name of one of many tags.
pub fn many_tag(number: u32) -> String {
    format!("{number:0128}")
}

impl Operation {
    /// Its name in tables.
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
            Self::Checkpoint => "checkpoint",
            Self::Wait(_) => "wait",
        }
    }
}
