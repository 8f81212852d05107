//! The words of an upload.
//!
//! Owns: [`UploadId`] and its one spelling, [`UploadSpec`], [`UploadClaim`], [`UploadPosition`].

use std::fmt;
use std::str::FromStr;

use super::Algorithm;

/// Name of an upload: a random UUID, which is all that a client needs to continue it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(uuid::Uuid);

impl UploadId {
    /// A version 4 UUID of these random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// The id of 16 bytes on disk.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
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
pub enum UploadPosition {
    /// From this byte on. Takes over if the upload is there.
    At(u64),
    /// After what is there, up to the end of the blob, whose digest proves it. Takes over.
    End,
    /// After what is there, by a client that does not say where that is. Takes over only from a request that stalled.
    #[default]
    Anywhere,
}

/// What a request wants of an upload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UploadClaim {
    /// Where its bytes belong.
    pub position: UploadPosition,
    /// The algorithm of the digest that it names: from now on that one runs, where there are no bytes yet.
    pub algorithm: Option<Algorithm>,
}
