//! Media types.
//!
//! Owns: [`MediaType`], and which of them mean what to a registry.
//! Refuses: parameters (distribution-spec: a registry ignores and does not return them).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// `application/vnd.oci.image.manifest.v1+json`
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker schema 1; the signed form ends in `+prettyjws`.
const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// Longest media type; RFC 6838 section 4.2 allows 127 characters on each side of the slash.
const BYTES_MAX: usize = 255;

/// A type and subtype, without parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Arc<str>);

/// The string is no media type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a media type of at most {BYTES_MAX} characters, such as {OCI_MANIFEST}")]
pub struct InvalidMediaType;

impl MediaType {
    /// The type as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names an image manifest.
    pub fn is_image(&self) -> bool {
        matches!(self.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
    }

    /// Whether it names an index or a manifest list.
    pub fn is_index(&self) -> bool {
        matches!(self.as_str(), OCI_INDEX | DOCKER_LIST)
    }

    /// Whether it names the manifest of Docker's schema 1, which has no digests of uncompressed meaning and
    /// which no current client pushes.
    pub fn is_schema1(&self) -> bool {
        self.0.starts_with(DOCKER_SCHEMA1)
    }

    /// Whether a layer of this type may be absent from the registry (image-spec, "Non-distributable layers").
    pub fn is_nondistributable(&self) -> bool {
        self.0
            .starts_with("application/vnd.oci.image.layer.nondistributable.v1.")
            || self
                .0
                .starts_with("application/vnd.docker.image.rootfs.foreign.")
    }
}

/// Whether no browser runs or renders content of this type: JSON and the types of vendors, unless they are XML.
pub fn is_inert(media_type: &str) -> bool {
    let text = media_type.to_ascii_lowercase();
    let vendor = text.starts_with("application/vnd.") && !text.ends_with("xml");
    vendor || text == "application/json" || text.ends_with("+json")
}

impl FromStr for MediaType {
    type Err = InvalidMediaType;

    /// Cuts parameters off.
    fn from_str(text: &str) -> Result<Self, InvalidMediaType> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        let (kind, subtype) = essence.split_once('/').ok_or(InvalidMediaType)?;
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        let good = |part: &str| !part.is_empty() && part.bytes().all(token);
        if good(kind) && good(subtype) && essence.len() <= BYTES_MAX {
            Ok(Self(essence.into()))
        } else {
            Err(InvalidMediaType)
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a type that a browser would run is told from those of manifests, however it is written.
    #[test]
    fn types_that_browsers_run_are_not_inert() {
        for manifest in [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST] {
            assert!(is_inert(manifest), "{manifest}");
        }
        assert!(is_inert("application/vnd.example") && is_inert("application/json"));
        for run in [
            "text/html",
            "Text/HTML",
            "image/svg+xml",
            "application/xhtml+xml",
            "application/vnd.mozilla.xul+XML",
            "application/javascript",
            "application/pdf",
            "multipart/x-mixed-replace",
        ] {
            assert!(!is_inert(run), "{run}");
        }
    }

    /// Guards: distribution-spec, "Pushing manifests": parameters of Content-Type are ignored.
    #[test]
    fn parameters_are_cut_and_nonsense_refused() {
        let parsed: MediaType = format!("{OCI_MANIFEST} ; charset=utf-8").parse().unwrap();
        assert_eq!(parsed.as_str(), OCI_MANIFEST);
        assert!(parsed.is_image() && !parsed.is_index());
        for bad in [
            "",
            "/",
            "a/",
            "/b",
            "a",
            "a/b/c",
            "a b/c",
            "a/\u{e4}",
            &format!("a/{}", "b".repeat(254)),
        ] {
            assert_eq!(bad.parse::<MediaType>(), Err(InvalidMediaType), "{bad:?}");
        }
    }
}
