//! Uploads: bytes on their way in.
//!
//! Owns: sessions, their pipeline (receive, hash, write at once), memory under one budget, and what of them
//! survives a restart. Refuses: making anything exist; that is a commit of the [`crate::FinishedBlob`].
//!
//! Invariants: an upload has one writer at a time, the newest request that is in order; what was received stays
//! received when a request ends, however it ends; memory does not grow with the size of a blob, but for 4 bytes a
//! chunk; an upload to which nothing comes holds neither bytes in memory nor a descriptor, and may be ended where
//! a limit is reached.

mod body;
mod digestion;
mod finished;
mod log;
mod places;
mod quiet;
mod request;
mod resume;
mod session;
mod session_table;
mod sessions;
mod shared;
mod small;
mod space;
mod spill;
mod staging;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod workbench;

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::str::FromStr;

use crate::digest::{Algorithm, Digest};
use crate::extent::Extent;

pub(crate) use quiet::LOOK_INTERVAL;
pub use request::{Savepoint, Upload};
pub(crate) use resume::surviving;
pub(crate) use resume::{FoundLog, ReadLog, logs};
pub(crate) use sessions::Uploads;

/// Whether `name` is that of an upload log.
pub(crate) fn is_log_name(name: &str) -> bool {
    log::LogFile::parse_name(name).is_some()
}

/// Name of an upload: a random UUID, which is all that a client needs to continue it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(uuid::Uuid);

impl UploadId {
    /// A version 4 UUID of these random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// The id of 16 bytes on disk.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_hyphenated(), f)
    }
}

/// Not an upload id as we write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an upload id is a UUID in lowercase with hyphens")]
pub struct ParseUploadIdError;

impl FromStr for UploadId {
    type Err = ParseUploadIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = uuid::Uuid::try_parse(text)
            .map(Self)
            .ok()
            .ok_or(ParseUploadIdError)?;
        // The parser takes other spellings, too; one upload has one name.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(ParseUploadIdError)
        }
    }
}

/// What an upload begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadSpec {
    /// The repository it belongs to; others do not see it.
    pub repository: String,
    /// Who begins it; cut at [`crate::limits::ORIGIN_BYTES_MAX`].
    pub actor: String,
    /// The digest algorithm to run; SHA-256 if none is named.
    pub algorithm: Option<Algorithm>,
    /// Bytes that are announced: a hint, never trusted.
    pub length_hint: Option<u64>,
    /// Its one writer is all that knows of it: when it is let go, the upload is over.
    pub unlisted: bool,
}

/// Where the bytes of a request belong, and so whether it may take over from one that is still there: a client whose
/// connection broke comes back on a new one, while the old one looks alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    /// From this byte on. Takes over if the upload is there.
    At(u64),
    /// Behind what is there, up to the end of the blob, whose digest proves it. Takes over.
    End,
    /// Behind what is there, by a client that does not say where that is. Takes over only from a request that stalled.
    #[default]
    Anywhere,
}

/// What a request wants of an upload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UploadClaim {
    /// Where its bytes belong.
    pub place: Place,
    /// The algorithm of the digest that it names: from now on that one runs, where there are no bytes yet.
    pub algorithm: Option<Algorithm>,
}

/// How far an upload has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStatus {
    /// Bytes received.
    pub offset: u64,
    /// The algorithm that runs.
    pub algorithm: Algorithm,
    /// Who began it.
    pub actor: String,
    /// When it began, Unix ms.
    pub created_unix_ms: u64,
}

/// What the store has already, so that it is not written again.
pub(crate) trait Existing: Send + Sync + Debug {
    /// Where the content of `digest` is, as of the last durable transaction. The digest is pinned when this is asked.
    fn stored(&self, digest: Digest) -> Pin<Box<dyn Future<Output = Option<Extent>> + Send + '_>>;
}
