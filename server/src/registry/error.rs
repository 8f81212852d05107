//! What can go wrong in a use case, by what it means to the client.
//!
//! Owns: [`Error`]. Refuses: statuses and codes (`http::error` maps them), and anything internal in a message: what
//! the cause was goes to the log through `source`.

use std::fmt;
use std::sync::Arc;

use tonnage_engine::vocabulary::{Digest, ParseDigestError};

use crate::access::{Challenge, Refused};
use crate::oci::{
    InvalidName, InvalidPage, InvalidTag, ManifestError, Place, Reference, RepositoryName,
    range::InvalidChunkRange,
};

/// Result of a use case.
pub type Result<T> = std::result::Result<T, Error>;

/// A cause kept for the log.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// What went wrong. The message is for the client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No credentials, or some that do not hold.
    #[error("this needs credentials")]
    Unauthenticated(Challenge),
    /// Credentials that do not suffice.
    #[error("these credentials do not allow this")]
    Denied,

    /// No such repository.
    #[error("there is no repository {0}")]
    NameUnknown(RepositoryName),
    /// Content of a registry that is not mirrored here.
    #[error("this registry does not mirror the one that ns= names; ask that one, or leave ns out")]
    NamespaceUnknown,
    /// No such manifest or tag.
    #[error("{repository} has no manifest {reference}")]
    ManifestUnknown {
        /// Where.
        repository: RepositoryName,
        /// What was asked for.
        reference: String,
    },
    /// No such blob in the repository.
    #[error("{repository} has no blob {digest}")]
    BlobUnknown {
        /// Where.
        repository: RepositoryName,
        /// What was asked for.
        digest: Digest,
    },
    /// No such upload.
    #[error(
        "there is no such upload; it ended, was cancelled, expired, or was lost in a crash. Begin another"
    )]
    UploadUnknown,

    /// A name that is none.
    #[error(transparent)]
    NameInvalid(#[from] InvalidName),
    /// A tag that is none.
    #[error(transparent)]
    TagInvalid(#[from] InvalidTag),
    /// A digest that is none, or of an algorithm that is not supported.
    #[error(transparent)]
    DigestInvalid(#[from] ParseDigestError),
    /// An upload closed without saying its digest.
    #[error("closing an upload needs ?digest= with the digest of the whole blob")]
    DigestMissing,
    /// The content is something else than announced.
    #[error("the content is {found}, not {expected}; nothing of this request was kept")]
    DigestMismatch {
        /// Announced.
        expected: Digest,
        /// Received.
        found: Box<Digest>,
    },
    /// A page that is none.
    #[error(transparent)]
    PageInvalid(#[from] InvalidPage),

    /// The chunk does not continue the upload.
    #[error("the chunk begins at byte {first}, but the upload has {offset} bytes; continue there")]
    OutOfOrder {
        /// Where the chunk begins.
        first: u64,
        /// Where it should.
        offset: u64,
    },
    /// Another request is writing to the upload, or took over from this one.
    #[error(
        "another request is writing to this upload; ask where it is, and continue with a Content-Range that begins there"
    )]
    UploadBusy,
    /// A chunk whose range is none.
    #[error(transparent)]
    ChunkRangeInvalid(#[from] InvalidChunkRange),
    /// A body that is not as long as its Content-Range.
    #[error(
        "the Content-Range says {announced} bytes, the body has {received}; nothing of it was kept"
    )]
    ChunkLength {
        /// By Content-Range.
        announced: u64,
        /// By Content-Length, or counted; at least this many.
        received: u64,
    },
    /// The connection failed inside the body.
    #[error("the request's body broke off before its end; send it again")]
    BodyBroken,
    /// The body's transfer coding cannot be read.
    #[error(
        "the chunks of the request's body are not framed as HTTP/1.1 says (RFC 9112 section 7.1); send it again"
    )]
    BodyFraming,
    /// The same inside the body of a manifest.
    #[error("the manifest broke off before its end; push it again")]
    ManifestBroken,
    /// The client was silent for too long inside the body, or took too long for all of it.
    #[error("the rest of the request's body did not come in time; send it again")]
    BodyTimeout,
    /// The same inside the body of an upload, which keeps what came.
    #[error(
        "the rest of the request's body did not come in time; ask for the upload's offset and continue there"
    )]
    UploadTimeout,
    /// Compressed bodies are not content.
    #[error("Content-Encoding is not supported; send the bytes that the digest is of")]
    ContentEncoding,

    /// Not a manifest that we take.
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    /// Too large a manifest.
    #[error("a manifest has at most {max} bytes")]
    ManifestTooLarge {
        /// The limit.
        max: u64,
    },
    /// The repository has the manifest as another type.
    #[error(
        "the repository has {digest} as {stored}, and a manifest's type does not change; push it with \
         that Content-Type, or delete it first"
    )]
    ManifestTypeStored {
        /// The manifest.
        digest: Digest,
        /// The type that it has.
        stored: String,
    },
    /// What the manifest lists is not in the repository.
    #[error("{}{}", first(.0), more(.0))]
    ManifestBlobUnknown(Vec<Missing>),
    /// Too many tags in one request.
    #[error("one request sets at most {max} tags")]
    TooManyTags {
        /// The limit.
        max: usize,
    },
    /// If-Match or If-None-Match does not hold.
    #[error("the condition of If-Match or If-None-Match does not hold; nothing was done")]
    PreconditionFailed,

    /// Too many or overlapping ranges.
    #[error("too many byte ranges, or overlapping ones; ask for fewer at a time")]
    RangesExcessive,
    /// No range inside the content.
    #[error("no byte range asked for lies inside the {length} bytes")]
    RangeUnsatisfiable {
        /// The content's length.
        length: u64,
    },

    /// Too many uploads at once.
    #[error("the registry has {max} unfinished uploads, as many as it takes; try again later")]
    TooManyUploads {
        /// The limit.
        max: usize,
    },
    /// No memory for the head of another request.
    #[error(
        "too many requests with large heads are under way; send fewer at a time on one connection"
    )]
    TooManyRequests,
    /// No memory for another manifest.
    #[error("the registry is taking in as many manifests as it has memory for; try again later")]
    TooManyManifests,
    /// No memory for another long list.
    #[error("the registry is sending as many long lists as it has memory for; try again later")]
    TooManyLists,
    /// No space.
    #[error("the registry's disk is full; pulls and deletes go on. Free space, then push again")]
    Full(#[source] Cause),
    /// The blob that was announced cannot fit.
    #[error(
        "the blob's {announced} bytes do not fit: {free} bytes are free on the registry's disk. Free space, then push again"
    )]
    NoRoom {
        /// Bytes of the blob, as its client says.
        announced: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Not begun, for want of something that the system gives.
    #[error("the system does not let the registry have {shortage}; nothing was changed, try again")]
    NotAttempted {
        /// Of what there is too little.
        shortage: Shortage,
        /// Why, for the log.
        #[source]
        cause: Cause,
    },
    /// No writes since a failure.
    #[error(
        "the registry takes no pushes since its storage failed; pulls go on. Its operator has to look"
    )]
    ReadOnly(#[source] Cause),
    /// Shutting down.
    #[error("the registry is shutting down; try again")]
    Closing,
    /// Stored bytes are damaged.
    #[error("the stored content is damaged and is not served; pushing it again repairs it")]
    Damaged(#[source] Cause),
    /// Anything else; ours.
    #[error("the registry failed; its log says why under this request id")]
    Internal(#[source] Cause),
}

/// What the system gives too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// Descriptors.
    OpenFiles,
    /// Threads.
    Threads,
    /// Memory.
    Memory,
    /// The size that a file may have.
    FileSize,
    /// Something else; the log says what.
    Other,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenFiles => "another open file",
            Self::Threads => "another thread",
            Self::Memory => "more memory",
            Self::FileSize => "a file as large as this needs",
            Self::Other => "what this needs",
        })
    }
}

/// Something that a manifest lists and that the repository lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Its digest.
    pub digest: Digest,
    /// Where it is missing; it may be in the other place.
    pub place: Place,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.place {
            Place::Blob => "blob",
            Place::Manifest => "manifest",
            Place::Either | Place::Both => "blob or manifest",
        };
        let digest = self.digest;
        write!(
            f,
            "the manifest lists {digest}, and the repository has no {kind} of that digest; push it first"
        )
    }
}

fn first(missing: &[Missing]) -> String {
    missing.first().map(Missing::to_string).unwrap_or_default()
}

fn more(missing: &[Missing]) -> String {
    match missing.len() {
        0 | 1 => String::new(),
        count => format!(" ({count} are missing)"),
    }
}

impl Error {
    /// A broken expectation of ours, told to the log.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(Arc::from(cause.into()))
    }

    /// A manifest that is not there.
    pub(crate) fn manifest_unknown(repository: &RepositoryName, reference: &Reference) -> Self {
        Self::ManifestUnknown {
            repository: repository.clone(),
            reference: reference.to_string(),
        }
    }

    /// A blob that is not there.
    pub(crate) fn blob_unknown(repository: &RepositoryName, digest: Digest) -> Self {
        Self::BlobUnknown {
            repository: repository.clone(),
            digest,
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unauthenticated(challenge) => Self::Unauthenticated(challenge),
            Refused::Denied => Self::Denied,
        }
    }
}
