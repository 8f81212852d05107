//! Manifests: images, indexes, artifacts, in their OCI and Docker forms.
//!
//! Owns: [`Manifest`], the parts of a manifest that a registry needs. Its bytes are stored and served unchanged.
//! Accepts: any JSON manifest or index, unknown fields, no layers, any artifact type, a subject that does not exist,
//! index entries that are blobs.
//! Refuses: documents that two parsers may read differently (`object`, `document`), and documents that do not fit their
//! media type (`judge`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeSeed as _;
use tonnage_engine::vocabulary::Digest;

use super::media_type::MediaType;

mod document;
mod error;
mod judge;
mod object;
#[cfg(test)]
mod tests;

pub use error::ManifestError;

use document::Document;
use object::Object;

/// The shape of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A config and layers.
    Image,
    /// A list of manifests (or, from build caches, of blobs).
    Index,
    /// Neither of the registered types; it may have `blobs` or other lists.
    Other,
}

/// Where clients look for something that a manifest lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Among the blobs.
    Blob,
    /// Among the manifests.
    Manifest,
    /// In one of the two: an index lists manifests and, in build caches, blobs.
    Either,
    /// In both: it is listed more than once.
    Both,
}

impl Place {
    /// Combines the places of two entries for the same digest.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Either, place) | (place, Self::Either) => place,
            (one, other) if one == other => one,
            _ => Self::Both,
        }
    }
}

/// An entry that a manifest lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its digest.
    pub digest: Digest,
    /// Where clients look for it.
    pub place: Place,
    /// Whether the registry may lack it (non-distributable layers).
    pub optional: bool,
}

/// The parts of a manifest that a registry needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Served as Content-Type.
    pub media_type: MediaType,
    /// Its shape.
    pub kind: Kind,
    /// Everything it lists, without repeats, in order.
    pub children: Vec<Child>,
    /// What it refers to.
    pub subject: Option<Digest>,
    /// Of a referrer (image-spec): its own `artifactType`, else for an image its config's media type.
    pub artifact_type: Option<String>,
    /// Copied into the list of referrers.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Parses a manifest that was pushed or stored with `content_type`, whose parameters are ignored.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        // Go replaces bytes that are not UTF-8.
        let text = str::from_utf8(bytes).map_err(|why| ManifestError::Json(why.to_string()))?;
        let mut reader = serde_json::Deserializer::from_str(text);
        let document = Object::<Document<'_>>::new().deserialize(&mut reader)?;
        reader.end()?;
        let media_type = judge::media_type(&document, content_type)?;
        let kind = judge::kind(&document, &media_type)?;
        let subject = document.subject.as_ref();
        let annotations = document.annotations.iter().flatten();
        Ok(Self {
            children: judge::children(&document)?,
            media_type,
            kind,
            subject: subject
                .map(|subject| subject.digest("subject"))
                .transpose()?,
            artifact_type: judge::artifact_type(&document, kind)?,
            annotations: annotations
                .map(|(key, text)| (key.clone().into_owned(), text.clone().into_owned()))
                .collect(),
        })
    }
}

/// Parses the annotations of a stored manifest. Nothing else of it is validated again.
pub fn stored_annotations(bytes: &[u8]) -> Result<BTreeMap<String, String>, ManifestError> {
    #[derive(Deserialize)]
    struct Annotated {
        annotations: Option<BTreeMap<String, String>>,
    }
    let document: Annotated = serde_json::from_slice(bytes)?;
    Ok(document.annotations.unwrap_or_default())
}
