//! Media types.
//!
//! Owns: [`MediaType`], and the meaning of known types to a registry.
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
/// Artifact manifests of the image-spec's release candidates and of ORAS before them; they have no schema version.
const ARTIFACT_MANIFESTS: [&str; 2] = [
    "application/vnd.oci.artifact.manifest.v1+json",
    "application/vnd.cncf.oras.artifact.manifest.v1+json",
];
/// Prefixes of the types of layers, configs and empty content, which every client pulls as blobs.
const BLOBS: [&str; 5] = [
    "application/vnd.oci.image.layer.",
    "application/vnd.oci.image.config.",
    "application/vnd.oci.empty.",
    "application/vnd.docker.image.rootfs.",
    "application/vnd.docker.container.image.",
];

/// Longest media type; RFC 6838 section 4.2 allows 127 characters on each side of the slash.
const BYTES_MAX: usize = 255;

/// A type and subtype in lower case, without parameters. They are case-insensitive (RFC 9110 section 8.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Arc<str>);

/// Where clients look for content of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Among manifests.
    AsManifest,
    /// Among blobs.
    AsBlob,
    /// That depends on the client.
    Anywhere,
}

/// The error that a string is not a media type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a media type of at most {BYTES_MAX} characters, such as {OCI_MANIFEST}")]
pub struct InvalidMediaType;

impl MediaType {
    /// Returns the type in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether it names an image manifest.
    pub fn is_image(&self) -> bool {
        matches!(self.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
    }

    /// Returns whether it names an index or a manifest list.
    pub fn is_index(&self) -> bool {
        matches!(self.as_str(), OCI_INDEX | DOCKER_LIST)
    }

    /// Returns whether it names an artifact manifest from before image-spec 1.1.
    pub fn is_artifact(&self) -> bool {
        ARTIFACT_MANIFESTS.contains(&self.as_str())
    }

    /// Returns whether it names a manifest of Docker's schema 1, which no current client pushes.
    pub fn is_schema1(&self) -> bool {
        self.0.starts_with(DOCKER_SCHEMA1)
    }

    /// Returns whether a layer of this type may be absent from the registry (image-spec, "Non-distributable layers").
    pub fn is_nondistributable(&self) -> bool {
        self.0
            .starts_with("application/vnd.oci.image.layer.nondistributable.v1.")
            || self
                .0
                .starts_with("application/vnd.docker.image.rootfs.foreign.")
    }

    /// Returns whether content of this type is JSON, which no browser executes.
    pub fn is_json(&self) -> bool {
        let subtype = self.0.strip_prefix("application/");
        subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
    }

    /// Returns where clients look for content of this type.
    pub fn stored(&self) -> Stored {
        if self.is_image() || self.is_index() || self.is_artifact() || self.is_schema1() {
            Stored::AsManifest
        } else if BLOBS.iter().any(|prefix| self.0.starts_with(prefix)) {
            Stored::AsBlob
        } else {
            Stored::Anywhere
        }
    }
}

/// Returns whether no browser executes or renders content of this type. That holds for JSON and vendors' types, unless
/// they are XML.
pub fn is_inert(media_type: &str) -> bool {
    let text = media_type.to_ascii_lowercase();
    let vendor = text.starts_with("application/vnd.") && !text.ends_with("xml");
    vendor || text == "application/json" || text.ends_with("+json")
}

impl FromStr for MediaType {
    type Err = InvalidMediaType;

    /// Parses a media type and drops its parameters.
    fn from_str(text: &str) -> Result<Self, InvalidMediaType> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        let (kind, subtype) = essence.split_once('/').ok_or(InvalidMediaType)?;
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        let good = |part: &str| !part.is_empty() && part.bytes().all(token);
        if good(kind) && good(subtype) && essence.len() <= BYTES_MAX {
            Ok(Self(essence.to_ascii_lowercase().into()))
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

    /// Guards: a type that a browser would execute is recognized in every spelling.
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

    /// Guards: distribution-spec, "Pushing manifests": parameters of Content-Type are ignored; RFC 9110 section 8.3.1:
    /// so is case.
    #[test]
    fn parameters_are_cut_and_nonsense_refused() {
        let text = format!("{} ; charset=utf-8", OCI_MANIFEST.to_ascii_uppercase());
        let parsed: MediaType = text.parse().unwrap();
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

    /// Guards: a manifest is never served as a type that a browser executes.
    #[test]
    fn only_json_is_json() {
        for (text, json) in [
            (OCI_INDEX, true),
            ("application/json", true),
            ("application/vnd.x+JSON", true),
            ("text/html", false),
            ("text/json", false),
            ("image/svg+xml", false),
            ("application/xhtml+xml", false),
            ("application/javascript", false),
            ("application/pdf", false),
            ("application/+jsonx", false),
        ] {
            let parsed: MediaType = text.parse().unwrap();
            assert_eq!(parsed.is_json(), json, "{text}");
        }
    }
}
