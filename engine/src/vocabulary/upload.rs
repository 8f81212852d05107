//! The types of an upload.
//!
//! Owns: [`UploadId`] and its text form, [`UploadSpec`], [`UploadClaim`], [`UploadPosition`].

use std::fmt;
use std::str::FromStr;

use super::{Algorithm, ClientId};

/// The name of an upload: a random UUID, which is all that a client needs to continue it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(uuid::Uuid);

impl UploadId {
    /// Creates a version 4 UUID from random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Creates the id from its 16 bytes on disk.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// Returns the 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_hyphenated(), f)
    }
}

/// The error of text that is not an upload id.
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
        // The parser accepts other forms, too, but one upload has one name.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(ParseUploadIdError)
        }
    }
}

/// The parameters of a new upload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadSpec {
    /// Repository that it belongs to. It is invisible in others.
    pub repository: String,
    /// Actor that begins it; cut at [`crate::limits::ORIGIN_BYTES_MAX`].
    pub actor: String,
    /// Digest algorithm; SHA-256 if none is named.
    pub algorithm: Option<Algorithm>,
    /// Announced size in bytes: a hint, never trusted.
    pub length_hint: Option<u64>,
    /// Whether the upload is not listed and ends when its one writer is dropped.
    pub unlisted: bool,
}

/// The position of a request's bytes in an upload.
///
/// It decides whether the request may take over from an earlier one that is still open. After a broken connection a
/// client returns on a new one, while the old one still looks alive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UploadPosition {
    /// From this byte on. Takes over if the upload has exactly so many bytes.
    At(u64),
    /// After the bytes received, up to the end of the blob, whose digest proves it. Takes over.
    End,
    /// After the bytes received, from a client that does not say where that is. Takes over only from a request that
    /// stalled.
    #[default]
    Anywhere,
}

/// What a request needs of an upload, and whose it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UploadClaim {
    /// The client that sends it.
    pub client: ClientId,
    /// Position of its bytes.
    pub position: UploadPosition,
    /// Algorithm of the digest that it names. An upload without bytes switches to it.
    pub algorithm: Option<Algorithm>,
    /// Whether it brings bytes. It is refused if the disk is nearly full.
    pub brings_bytes: bool,
    /// How many bytes it brings, if it announces them: a hint, never trusted. Space is reserved for them.
    pub announced: Option<u64>,
}
