//! Errors of manifests that the registry rejects.

use super::super::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

/// Longest quotation of a JSON parser's error, or of a client's text, in bytes.
const QUOTED_BYTES_MAX: usize = 300;

/// Why the registry rejects a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not one JSON object, or fields of the wrong kind, or keys that are read in several ways.
    #[error("the manifest cannot be parsed: {0}")]
    Json(String),
    /// The digest of a descriptor.
    #[error("{place}: {why}")]
    Digest {
        /// Which descriptor.
        place: &'static str,
        /// Why it is none.
        why: tonnage_engine::vocabulary::ParseDigestError,
    },
    /// A descriptor without a digest or size.
    #[error("{place}: a descriptor needs a digest and a size")]
    Incomplete {
        /// Which descriptor.
        place: &'static str,
    },
    /// The content that a descriptor carries is not what it describes.
    #[error("{place}: the data is not base64 of content with the descriptor's digest and size")]
    Data {
        /// Which descriptor.
        place: &'static str,
    },
    /// `schemaVersion` is not 2.
    #[error(
        "schemaVersion is {0}, only 2 is supported; push with a client that is newer than Docker 1.10"
    )]
    SchemaVersion(i64),
    /// `mediaType` and Content-Type differ.
    #[error("the Content-Type is {header}, but the manifest's mediaType is {body}")]
    MediaTypesDiffer {
        /// Content-Type.
        header: String,
        /// `mediaType`.
        body: String,
    },
    /// Content-Type or `mediaType` is not a media type.
    #[error("{0:?} is not a media type")]
    MediaType(String),
    /// The Content-Type requires a `mediaType`, which is missing.
    #[error(
        "the manifest has no mediaType, so its Content-Type must be one of {OCI_MANIFEST}, \
         {OCI_INDEX}, {DOCKER_MANIFEST} and {DOCKER_LIST}, not {0}"
    )]
    MediaTypeMissing(String),
    /// The media type is not one of JSON.
    #[error("{0} is not a media type of manifests; use application/json or application/...+json")]
    NotJsonType(String),
    /// The fields are those of both an image and an index, or not those that the type requires.
    #[error("{0}")]
    Shape(&'static str),
    /// Too many descriptors, or too long a field.
    #[error("{what}: {count} are more than the {max} allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The bound.
        max: usize,
    },
}

impl From<serde_json::Error> for ManifestError {
    /// Converts the error with a limit on its length, because the parser quotes keys and strings whole.
    fn from(error: serde_json::Error) -> Self {
        let mut text = error.to_string();
        if text.len() > QUOTED_BYTES_MAX {
            text = format!(
                "{}... at line {} column {}",
                quoted(&text),
                error.line(),
                error.column()
            );
        }
        Self::Json(text)
    }
}

/// Returns the beginning of a client's text.
pub(super) fn quoted(text: &str) -> String {
    let end = text.floor_char_boundary(QUOTED_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}
