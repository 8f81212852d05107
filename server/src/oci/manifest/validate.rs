//! Validation of a manifest's fields in combination.
//!
//! Owns: deriving its media type, its shape, its artifact type and its children. Pure.
//! Refuses: fields that fit two shapes or do not fit the type; types other than JSON, which a browser might execute.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tonnage_engine::limits::MANIFEST_CHILDREN_MAX;

use super::super::json_text::json_bytes;
use super::super::media_type::{MediaType, OCI_INDEX, OCI_MANIFEST, Stored};
use super::document::{Descriptor, Document};
use super::error::{ManifestError, quoted};
use super::{Child, Kind, Place};

/// Longest artifact type in bytes as JSON, which is how it is stored and listed.
const ARTIFACT_TYPE_BYTES_MAX: usize = 1024;
/// Largest annotations of a referrer in bytes as JSON. A list of referrers repeats them, and clients accept at most 4
/// MiB of one.
const REFERRER_ANNOTATIONS_BYTES_MAX: usize = (4 << 20) - (8 << 10);

/// Returns the type that the manifest is stored and served with.
pub(super) fn media_type(
    document: &Document<'_>,
    header: Option<&str>,
) -> Result<MediaType, ManifestError> {
    let parse = |text: &str| {
        let parsed = text.parse::<MediaType>();
        parsed.map_err(|_invalid| ManifestError::MediaType(quoted(text)))
    };
    let header = header.map(parse).transpose()?;
    let named = document.media_type.as_deref();
    let body = match named.filter(|text| !text.is_empty()) {
        Some(text) => {
            let parsed = parse(text)?;
            // Only a header may have parameters. From the type of a document they would be cut, so it would differ from
            // what is served.
            if !parsed.as_str().eq_ignore_ascii_case(text) {
                return Err(ManifestError::MediaType(quoted(text)));
            }
            Some(parsed)
        }
        None => None,
    };
    let media_type = match (header, body) {
        (Some(header), Some(body)) if header != body => {
            return Err(ManifestError::MediaTypesDiffer {
                header: header.to_string(),
                body: body.to_string(),
            });
        }
        (_, Some(body)) => body,
        (Some(header), None) if header.is_image() || header.is_index() || header.is_schema1() => {
            header
        }
        (Some(header), None) => {
            return Err(ManifestError::MediaTypeMissing(header.to_string()));
        }
        (None, None) if lists_manifests(document) => parse(OCI_INDEX)?,
        (None, None) => parse(OCI_MANIFEST)?,
    };
    if media_type.is_schema1() || document.fs_layers {
        return Err(ManifestError::SchemaVersion(1));
    }
    if media_type.is_json() {
        Ok(media_type)
    } else {
        Err(ManifestError::NotJsonType(media_type.to_string()))
    }
}

fn is_image_like(document: &Document<'_>) -> bool {
    document.config.is_some() || document.layers.is_some() || document.blobs.is_some()
}

/// Returns whether the document has a list of manifests, which may be empty. Go writes an empty list as null, and may
/// also write the fields of the other shape as null.
fn lists_manifests(document: &Document<'_>) -> bool {
    document.manifests.is_some() || (document.null_manifests && !is_image_like(document))
}

/// Returns the manifest's shape, and checks that it fits the type.
pub(super) fn kind(document: &Document<'_>, media_type: &MediaType) -> Result<Kind, ManifestError> {
    let shape = |why| Err(ManifestError::Shape(why));
    if document.manifests.is_some() && is_image_like(document) {
        return shape("a document with manifests as well as config, layers or blobs is ambiguous");
    }
    match document.schema_version {
        Some(2) => {}
        Some(other) => return Err(ManifestError::SchemaVersion(other)),
        None if media_type.is_image() || media_type.is_index() => {
            return shape("schemaVersion is missing; it must be 2");
        }
        None => {}
    }
    let lists_manifests = lists_manifests(document);
    if media_type.is_image() {
        if lists_manifests || document.config.is_none() {
            return shape("an image manifest has a config and no manifests");
        }
        return Ok(Kind::Image);
    }
    if media_type.is_index() {
        if !lists_manifests {
            return shape(
                "an index has a list of manifests, which may be empty, and neither config nor layers",
            );
        }
        return Ok(Kind::Index);
    }
    if lists_manifests {
        return Ok(Kind::Index);
    }
    if is_image_like(document) || media_type.is_artifact() {
        return Ok(Kind::Other);
    }
    shape("the document is not a manifest: it has neither config, layers, blobs nor manifests")
}

/// Returns the artifact type for lists of referrers, and checks that the manifest fits into such a list.
pub(super) fn artifact_type(
    document: &Document<'_>,
    kind: Kind,
) -> Result<Option<String>, ManifestError> {
    let own = document.artifact_type.as_deref();
    let own = own.filter(|own| !own.is_empty());
    let config = document.config.as_ref();
    let config = config.and_then(|config| config.media_type.as_deref());
    let config = config.filter(|config| kind == Kind::Image && !config.is_empty());
    let chosen = own.or(config);
    let bytes = chosen.map_or(0, json_bytes);
    within("bytes of the artifactType", bytes, ARTIFACT_TYPE_BYTES_MAX)?;
    if let (Some(_), Some(annotations)) = (&document.subject, &document.annotations) {
        // Two quotes for each text, a colon and a comma.
        let one =
            |(key, value): (&Cow<'_, str>, &Cow<'_, str>)| json_bytes(key) + json_bytes(value) + 6;
        let bytes = annotations.iter().map(one).sum();
        within(
            "bytes of annotations of a referrer",
            bytes,
            REFERRER_ANNOTATIONS_BYTES_MAX,
        )?;
    }
    Ok(chosen.map(str::to_owned))
}

fn within(what: &'static str, count: usize, max: usize) -> Result<(), ManifestError> {
    if count <= max {
        return Ok(());
    }
    Err(ManifestError::TooMany { what, count, max })
}

/// Returns everything that the manifest lists, each digest once, in order.
pub(super) fn children(document: &Document<'_>) -> Result<Vec<Child>, ManifestError> {
    let mut all = Vec::new();
    if let Some(config) = &document.config {
        all.push(child(config, "config", false)?);
    }
    for (place, list) in [
        ("layers", &document.layers),
        ("blobs", &document.blobs),
        ("manifests", &document.manifests),
    ] {
        for descriptor in list.iter().flatten() {
            all.push(child(descriptor, place, place == "manifests")?);
        }
    }
    within("descriptors", all.len(), MANIFEST_CHILDREN_MAX)?;
    let mut known: BTreeMap<_, usize> = BTreeMap::new();
    let mut unique: Vec<Child> = Vec::with_capacity(all.len());
    for child in all {
        match known.entry(child.digest) {
            Entry::Vacant(new) => {
                new.insert(unique.len());
                unique.push(child);
            }
            Entry::Occupied(at) => {
                if let Some(same) = unique.get_mut(*at.get()) {
                    // A child that is required in one place is required.
                    same.place = same.place.and(child.place);
                    same.optional &= child.optional;
                }
            }
        }
    }
    Ok(unique)
}

fn child(
    descriptor: &Descriptor<'_>,
    list: &'static str,
    entry: bool,
) -> Result<Child, ManifestError> {
    let media_type = descriptor.media_type.as_deref();
    let media_type = media_type.and_then(|text| text.parse::<MediaType>().ok());
    let stored = media_type
        .as_ref()
        .map_or(Stored::Anywhere, MediaType::stored);
    Ok(Child {
        digest: descriptor.digest(list)?,
        place: match (stored, entry) {
            (Stored::AsManifest, true) => Place::Manifest,
            // Some clients pull a layer of a manifest's type as a manifest, others as a blob.
            (Stored::AsManifest, false) | (Stored::Anywhere, true) => Place::Either,
            (Stored::AsBlob, _) | (Stored::Anywhere, false) => Place::Blob,
        },
        optional: media_type.is_some_and(|media_type| media_type.is_nondistributable()),
    })
}
