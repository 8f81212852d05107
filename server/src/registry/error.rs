//! Errors of use cases, by their meaning to the client.
//!
//! Owns: [`Error`]. Refuses: statuses and codes (`frontends::oci::error` maps them), and internal text in a message:
//! the cause is `source`, for the log.

use std::fmt;
use std::sync::Arc;

use tonnage_engine::vocabulary::{Digest, ParseDigestError};

use crate::oci::{
    InvalidName, InvalidPage, InvalidTag, ManifestError, Place, Reference, RepositoryName,
    range::InvalidChunkRange,
};

/// Result of a use case.
pub type Result<T> = std::result::Result<T, Error>;

/// A cause kept for the log.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why a use case failed. The message is for the client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such repository.
    #[error("there is no repository {0}")]
    NameUnknown(RepositoryName),
    /// The request is for a registry that is not mirrored here.
    #[error(
        "this registry does not mirror the one that ns= names; pull from that one, or leave ns out"
    )]
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
        "there is no such upload; it ended, was cancelled, expired, or was lost in a crash; begin another"
    )]
    UploadUnknown,

    /// The tag exists, and the sender may not point it at something else.
    #[error("the tag {0} exists, and these credentials do not allow to point it at something else")]
    TagProtected(String),

    /// An invalid repository name.
    #[error(transparent)]
    NameInvalid(#[from] InvalidName),
    /// An invalid tag.
    #[error(transparent)]
    TagInvalid(#[from] InvalidTag),
    /// An invalid digest, or one of an algorithm that is not supported.
    #[error(transparent)]
    DigestInvalid(#[from] ParseDigestError),
    /// The request that closes an upload names no digest.
    #[error("the request that closes an upload needs ?digest= with the digest of the whole blob")]
    DigestMissing,
    /// The content has another digest than announced.
    #[error("the content is {found}, not {expected}; nothing of this request was kept")]
    DigestMismatch {
        /// Announced.
        expected: Digest,
        /// Received.
        found: Box<Digest>,
    },
    /// An invalid page.
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
        "another request is writing to this upload; get its offset, and continue with a Content-Range that begins there"
    )]
    UploadBusy,
    /// A chunk with an invalid range.
    #[error(transparent)]
    ChunkRangeInvalid(#[from] InvalidChunkRange),
    /// A body that is not as long as its Content-Range.
    #[error(
        "the Content-Range announces {announced} bytes, but the body has {received}; nothing of it was kept"
    )]
    ChunkLength {
        /// By Content-Range.
        announced: u64,
        /// By Content-Length, or counted; at least this many.
        received: u64,
    },
    /// The connection failed inside the body.
    #[error("the request's body ended early; send it again")]
    BodyBroken,
    /// The body's transfer coding cannot be read.
    #[error("the request's body is not valid chunked coding (RFC 9112 section 7.1); send it again")]
    BodyFraming,
    /// The connection failed inside the body of a manifest.
    #[error("the manifest ended early; push it again")]
    ManifestBroken,
    /// The client paused for too long inside the body, or took too long for all of it.
    #[error("the request's body did not arrive in time; send it again")]
    BodyTimeout,
    /// The body of an upload did not arrive in time; the upload keeps the received part.
    #[error(
        "the request's body did not arrive in time; get the upload's offset and continue there"
    )]
    UploadTimeout,
    /// The body has a Content-Encoding, such as compression.
    #[error("Content-Encoding is not supported; send the bytes that the digest is of")]
    ContentEncoding,

    /// The manifest is rejected.
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
    /// The manifest lists content that is not in the repository.
    #[error("{}{}", first(.0), more(.0))]
    ManifestBlobUnknown(Vec<Missing>),
    /// Too many tags in one request.
    #[error("one request sets at most {max} tags")]
    TooManyTags {
        /// The limit.
        max: usize,
    },
    /// If-Match or If-None-Match does not hold.
    #[error("the condition of If-Match or If-None-Match does not hold; nothing was changed")]
    PreconditionFailed,

    /// Too many or overlapping ranges.
    #[error("too many byte ranges, or overlapping ones; request fewer at a time")]
    RangesExcessive,
    /// No range inside the content.
    #[error("no requested byte range lies inside the {length} bytes")]
    RangeUnsatisfiable {
        /// The content's length.
        length: u64,
    },

    /// Too many uploads at once.
    #[error("the registry has {max} unfinished uploads, which is its limit; try again later")]
    TooManyUploads {
        /// The limit.
        max: usize,
    },
    /// No memory for the head of another request.
    #[error(
        "too many requests with large heads are active; send fewer at a time on one connection"
    )]
    TooManyRequests,
    /// No memory for another manifest.
    #[error("the registry has no memory for another manifest now; try again later")]
    TooManyManifests,
    /// No memory for another long list.
    #[error("the registry has no memory for another long list now; try again later")]
    TooManyLists,
    /// No space.
    #[error(
        "the registry's disk is full; pulls and deletes still work; free space, then push again"
    )]
    Full(#[source] Cause),
    /// Less space is free than uploads must leave.
    #[error(
        "the registry's disk is nearly full: {free} bytes are free, fewer than the {min} that pushes must leave; pulls \
         and deletes still work; delete content or free space, then push again"
    )]
    NearlyFull {
        /// Bytes that are free.
        free: u64,
        /// The low watermark.
        min: u64,
    },
    /// The blob that was announced cannot fit.
    #[error(
        "the blob's {announced} bytes do not fit: {free} bytes are free for pushes on the registry's disk; free space, then push again"
    )]
    NoRoom {
        /// Bytes of the blob, as its client says.
        announced: u64,
        /// Bytes that are free above the low watermark.
        free: u64,
    },
    /// The operation was not attempted, because a resource of the system was exhausted.
    #[error("the system refused the registry {shortage}; nothing was changed; try again")]
    NotAttempted {
        /// The exhausted resource.
        shortage: Shortage,
        /// Why, for the log.
        #[source]
        cause: Cause,
    },
    /// The storage has been read-only since a failure.
    #[error(
        "the registry is read-only since its storage failed; pulls still work; its operator has to read the log and restart it"
    )]
    ReadOnly(#[source] Cause),
    /// Shutting down.
    #[error("the registry is shutting down; try again")]
    Closing,
    /// Stored bytes are damaged.
    #[error("the stored content is damaged and is not served; pushing it again repairs it")]
    Damaged(#[source] Cause),
    /// Any other error of the server.
    #[error("the registry failed; its log has the cause under this request id")]
    Internal(#[source] Cause),
}

/// A resource of the system that is exhausted.
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

/// Content that a manifest lists and that the repository lacks.
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
    /// Wraps an unexpected error, which is logged.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(Arc::from(cause.into()))
    }

    /// Builds the error for a manifest that does not exist.
    pub(crate) fn manifest_unknown(repository: &RepositoryName, reference: &Reference) -> Self {
        Self::ManifestUnknown {
            repository: repository.clone(),
            reference: reference.to_string(),
        }
    }

    /// Builds the error for a blob that does not exist.
    pub(crate) fn blob_unknown(repository: &RepositoryName, digest: Digest) -> Self {
        Self::BlobUnknown {
            repository: repository.clone(),
            digest,
        }
    }
}
