//! Manifests: images, indexes, artifacts, in their OCI and Docker forms.
//!
//! Owns: [`Manifest`], what a registry has to know of a manifest's bytes. The bytes themselves are stored
//! and served as they came.
//! Accepts: any JSON manifest or index, unknown fields, no layers, any artifact type, a subject that is
//! nowhere, index entries that are blobs.
//! Refuses: documents that two readers may take for different things: repeated keys (also when they differ
//! only in case where a reader ignores case), both `manifests` and `layers`, bytes behind the document, a `mediaType`
//! that contradicts the Content-Type or the document's shape.

use std::collections::BTreeMap;

use serde::Deserialize;
use tonnage_engine::Digest;
use tonnage_engine::limits::MANIFEST_CHILDREN_MAX;

use super::media_type::{MediaType, OCI_INDEX, OCI_MANIFEST};

mod keys;
mod object;

use object::Object;

/// What shape a manifest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A config and layers.
    Image,
    /// A list of manifests (or, from build caches, of blobs).
    Index,
    /// Neither of the registered types: whatever its `blobs` or other lists say.
    Other,
}

/// How a manifest names a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// As config, layer or blob.
    Blob,
    /// As an entry of an index: a manifest, or in build caches a blob.
    Entry,
}

/// Something a manifest lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its digest.
    pub digest: Digest,
    /// How it is listed.
    pub role: Role,
    /// Whether the registry need not have it (non-distributable layers).
    pub optional: bool,
}

/// What a registry has to know of a manifest.
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

/// Why bytes are no manifest that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not one JSON object, or fields of the wrong kind, or a repeated key.
    #[error("the manifest is not the JSON of a manifest: {0}")]
    Json(String),
    /// The digest of a descriptor.
    #[error("{place}: {why}")]
    Digest {
        /// Which descriptor.
        place: &'static str,
        /// Why it is none.
        why: tonnage_engine::ParseDigestError,
    },
    /// `schemaVersion` is not 2.
    #[error(
        "schemaVersion is {0}, only 2 is supported; push with a client that is newer than Docker 1.10"
    )]
    SchemaVersion(u64),
    /// `mediaType` and Content-Type differ.
    #[error("the Content-Type is {header}, but the manifest's mediaType says {body}")]
    MediaTypesDiffer {
        /// Content-Type.
        header: String,
        /// `mediaType`.
        body: String,
    },
    /// Content-Type or `mediaType` is none.
    #[error("{0:?} is not a media type")]
    MediaType(String),
    /// Fields of an image and of an index, or not those that the type demands.
    #[error("{0}")]
    Shape(&'static str),
    /// Too many descriptors, or too long an artifact type.
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

/// Longest artifact type kept, in bytes.
const ARTIFACT_TYPE_BYTES_MAX: usize = 1024;
/// Longest quotation of a JSON reader's complaint, in bytes.
const REASON_BYTES_MAX: usize = 300;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Object<Descriptor>>,
    layers: Option<Vec<Object<Descriptor>>>,
    manifests: Option<Vec<Object<Descriptor>>>,
    blobs: Option<Vec<Object<Descriptor>>>,
    subject: Option<Object<Descriptor>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    // Read for its kind only: a size that is negative or no number makes the document invalid.
    #[expect(dead_code, reason = "deserializing it is the check")]
    size: u64,
}

impl Manifest {
    /// Reads a manifest pushed with `content_type` (parameters already cut), or stored with it.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        keys::check(bytes).map_err(|error| not_json(&error))?;
        let document: Document = serde_json::from_slice(bytes).map_err(|error| not_json(&error))?;
        let media_type = media_type(&document, content_type)?;
        let kind = kind(&document, &media_type)?;
        let artifact_type = artifact_type(&document, kind)?;
        let subject = document
            .subject
            .as_ref()
            .map(|subject| digest(subject, "subject"))
            .transpose()?;
        Ok(Self {
            children: children(&document)?,
            media_type,
            kind,
            subject,
            artifact_type,
            annotations: document.annotations.unwrap_or_default(),
        })
    }
}

/// The annotations of a manifest that was taken before, maybe by a release that was less strict: nothing else of it is judged.
pub fn stored_annotations(bytes: &[u8]) -> Result<BTreeMap<String, String>, ManifestError> {
    #[derive(Deserialize)]
    struct Annotated {
        annotations: Option<BTreeMap<String, String>>,
    }
    let document: Annotated = serde_json::from_slice(bytes).map_err(|error| not_json(&error))?;
    Ok(document.annotations.unwrap_or_default())
}

/// Says why, without giving the client its own megabytes back: the reader quotes keys and strings whole.
fn not_json(error: &serde_json::Error) -> ManifestError {
    let mut text = error.to_string();
    if text.len() > REASON_BYTES_MAX {
        text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
        text = format!(
            "{text}... at line {} column {}",
            error.line(),
            error.column()
        );
    }
    ManifestError::Json(text)
}

fn media_type(document: &Document, header: Option<&str>) -> Result<MediaType, ManifestError> {
    let parse = |text: &str| {
        text.parse::<MediaType>()
            .map_err(|_invalid| ManifestError::MediaType(text.chars().take(255).collect()))
    };
    match (
        header,
        document
            .media_type
            .as_deref()
            .filter(|text| !text.is_empty()),
    ) {
        (Some(header), Some(body)) => {
            let header = parse(header)?;
            if header.as_str() != body {
                let (header, body) = (header.to_string(), body.chars().take(255).collect());
                return Err(ManifestError::MediaTypesDiffer { header, body });
            }
            Ok(header)
        }
        (Some(header), None) => parse(header),
        // Parameters are a header's matter. Here they would be cut off what is served, and the document say another type.
        (None, Some(body)) => {
            let parsed = parse(body)?;
            if parsed.as_str() == body {
                Ok(parsed)
            } else {
                Err(ManifestError::MediaType(body.chars().take(255).collect()))
            }
        }
        (None, None) if document.manifests.is_some() => parse(OCI_INDEX),
        (None, None) => parse(OCI_MANIFEST),
    }
}

fn kind(document: &Document, media_type: &MediaType) -> Result<Kind, ManifestError> {
    let shape = |why| Err(ManifestError::Shape(why));
    if media_type.is_schema1() {
        return Err(ManifestError::SchemaVersion(1));
    }
    let image_like = document.config.is_some() || document.layers.is_some();
    if document.manifests.is_some() && (image_like || document.blobs.is_some()) {
        return shape(
            "a document with manifests as well as config, layers or blobs can be read in two ways",
        );
    }
    match document.schema_version {
        Some(2) => {}
        Some(other) => return Err(ManifestError::SchemaVersion(other)),
        None if media_type.is_image() || media_type.is_index() => {
            return shape("schemaVersion is missing; it must be 2");
        }
        None => {}
    }
    if media_type.is_image() {
        if document.manifests.is_some() || document.config.is_none() {
            return shape("an image manifest has a config and no manifests");
        }
        return Ok(Kind::Image);
    }
    if media_type.is_index() {
        if document.manifests.is_none() {
            return shape(
                "an index has manifests, if only an empty list, and neither config nor layers",
            );
        }
        return Ok(Kind::Index);
    }
    Ok(if document.manifests.is_some() {
        Kind::Index
    } else {
        Kind::Other
    })
}

fn artifact_type(document: &Document, kind: Kind) -> Result<Option<String>, ManifestError> {
    let own = document
        .artifact_type
        .as_deref()
        .filter(|own| !own.is_empty());
    let config = document
        .config
        .as_ref()
        .and_then(|config| config.media_type.as_deref());
    let chosen = if kind == Kind::Image {
        own.or(config)
    } else {
        own
    };
    match chosen {
        Some(text) if text.len() > ARTIFACT_TYPE_BYTES_MAX => Err(ManifestError::TooMany {
            what: "bytes of the artifactType",
            count: text.len(),
            max: ARTIFACT_TYPE_BYTES_MAX,
        }),
        chosen => Ok(chosen.map(str::to_owned)),
    }
}

fn digest(descriptor: &Descriptor, place: &'static str) -> Result<Digest, ManifestError> {
    descriptor
        .digest
        .parse()
        .map_err(|why| ManifestError::Digest { place, why })
}

fn children(document: &Document) -> Result<Vec<Child>, ManifestError> {
    let list = |list: &'static str, of: &Option<Vec<Object<Descriptor>>>, role| {
        let entries = of.iter().flatten().map(move |descriptor| {
            let kind = descriptor
                .media_type
                .as_deref()
                .and_then(|text| text.parse::<MediaType>().ok());
            let optional = kind.is_some_and(|kind| kind.is_nondistributable());
            digest(descriptor, list).map(|digest| Child {
                digest,
                role,
                optional,
            })
        });
        entries.collect::<Result<Vec<_>, _>>()
    };
    let mut all = Vec::new();
    if let Some(config) = &document.config {
        all.push(Child {
            digest: digest(config, "config")?,
            role: Role::Blob,
            optional: false,
        });
    }
    all.extend(list("layers", &document.layers, Role::Blob)?);
    all.extend(list("blobs", &document.blobs, Role::Blob)?);
    all.extend(list("manifests", &document.manifests, Role::Entry)?);
    if all.len() > MANIFEST_CHILDREN_MAX {
        return Err(ManifestError::TooMany {
            what: "descriptors",
            count: all.len(),
            max: MANIFEST_CHILDREN_MAX,
        });
    }
    // A digest listed twice is needed if one of its places needs it.
    let mut needed: BTreeMap<Digest, bool> = BTreeMap::new();
    for child in &all {
        *needed.entry(child.digest).or_default() |= !child.optional;
    }
    let unique = all.into_iter().filter_map(|child| {
        needed.remove(&child.digest).map(|needed| Child {
            optional: !needed,
            ..child
        })
    });
    Ok(unique.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tonnage_engine::Algorithm;

    use super::super::media_type::{DOCKER_LIST, DOCKER_MANIFEST};
    use super::*;

    fn descriptor(media_type: &str, content: &str) -> Value {
        let digest = Digest::of(Algorithm::Sha256, content.as_bytes()).to_string();
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", "{}"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "a")],
        })
    }

    fn parse(document: &Value, content_type: Option<&str>) -> Result<Manifest, ManifestError> {
        Manifest::parse(document.to_string().as_bytes(), content_type)
    }

    /// Guards: image-spec manifest.md; unknown fields, repeated and non-distributable layers are taken.
    #[test]
    fn images_are_read_liberally() {
        let mut document = image();
        document["layers"] = json!([
            descriptor("application/vnd.oci.image.layer.v1.tar", "a"),
            descriptor("application/vnd.oci.image.layer.v1.tar", "a"),
            descriptor(
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                "b"
            ),
        ]);
        document["new"] = json!({"field": [1, 2, null]});
        document["annotations"] = json!({"A": "1", "a": "2"});
        document["subject"] = descriptor(OCI_MANIFEST, "nowhere");
        let manifest = parse(&document, Some(OCI_MANIFEST)).unwrap();
        let optional: Vec<bool> = manifest
            .children
            .iter()
            .map(|child| child.optional)
            .collect();
        assert_eq!(optional, [false, false, true]);
        assert_eq!(
            manifest.subject,
            Some(Digest::of(Algorithm::Sha256, b"nowhere"))
        );
        assert_eq!(
            manifest.artifact_type.as_deref(),
            Some("application/vnd.oci.image.config.v1+json")
        );
        assert_eq!(manifest.annotations.len(), 2);
        for (key, value) in [
            ("layers", json!([])),
            ("layers", Value::Null),
            ("artifactType", json!("a/b")),
        ] {
            let mut document = image();
            document[key] = value;
            assert_eq!(parse(&document, None).unwrap().kind, Kind::Image, "{key}");
        }
    }

    /// Guards: image-spec image-index.md: empty ones, blobs as entries, no artifact type from children.
    #[test]
    fn indexes_are_read_liberally() {
        for list in [
            json!([]),
            json!([descriptor(
                "application/vnd.oci.image.layer.v1.tar",
                "cache"
            )]),
        ] {
            let document = json!({"schemaVersion": 2, "manifests": list});
            for media_type in [
                None,
                Some(OCI_INDEX),
                Some(DOCKER_LIST),
                Some("application/vnd.x+json"),
            ] {
                let manifest = parse(&document, media_type).unwrap();
                assert_eq!((manifest.kind, manifest.artifact_type), (Kind::Index, None));
                assert!(
                    manifest
                        .children
                        .iter()
                        .all(|child| child.role == Role::Entry)
                );
            }
        }
    }

    /// Guards: an error body is small whatever the client sent: clients read at most 64 KiB of one.
    #[test]
    fn refusals_do_not_quote_megabytes() {
        let long = "\u{e4}\u{1}".repeat(100_000);
        let mut wrong = image();
        wrong["schemaVersion"] = json!(long);
        let twice = format!("{{\"{0}\":1,\"{0}\":2}}", long.replace('\u{1}', "x"));
        for text in [wrong.to_string(), twice] {
            let refused = Manifest::parse(text.as_bytes(), None)
                .unwrap_err()
                .to_string();
            assert!(refused.len() < 500, "{} bytes", refused.len());
            assert!(refused.contains("at line 1 column "), "{refused}");
        }
    }

    /// The same with every descriptor as a list of its fields' values.
    fn as_lists(image: &Value) -> Value {
        let list = |of: &Value| json!([of["mediaType"], of["digest"], of["size"]]);
        let mut image = image.clone();
        image["config"] = list(&image["config"]);
        image["layers"] = json!([list(&image["layers"][0])]);
        image
    }

    /// Guards: what a release took that was less strict is still listed among referrers with its annotations.
    #[test]
    fn annotations_of_stored_manifests_are_read_leniently() {
        let mut old = as_lists(&image());
        old["annotations"] = json!({"a": "1"});
        let found = stored_annotations(old.to_string().as_bytes()).unwrap();
        assert_eq!(found.get("a").map(String::as_str), Some("1"));
        assert_eq!(stored_annotations(b"{}"), Ok(BTreeMap::new()));
        assert!(stored_annotations(b"{\"annotations\":7}").is_err());
    }

    /// Guards: no document is taken that two readers may read differently (CVE-2021-41190 and its kin).
    #[test]
    fn ambiguous_documents_are_refused() {
        let mut both = image();
        both["manifests"] = json!([]);
        assert!(matches!(parse(&both, None), Err(ManifestError::Shape(_))));
        let differ = parse(&image(), Some(DOCKER_MANIFEST));
        assert!(matches!(
            differ,
            Err(ManifestError::MediaTypesDiffer { .. })
        ));
        let text = image().to_string();
        let inner = text.trim_start_matches('{');
        for (bad, what) in [
            (format!("{text}{text}"), "trailing document"),
            (format!("{text}x"), "trailing bytes"),
            (format!("{{\"layers\":[],{inner}"), "repeated key"),
            (format!("{{\"Layers\":[],{inner}"), "key in another case"),
            (
                format!("{{\"x\":{{\"a\":1,\"\\u0061\":2}},{inner}"),
                "repeated key further in",
            ),
            (
                text.replace("\"digest\"", "\"Digest\":\"\",\"digest\""),
                "key in another case further in",
            ),
            (format!("[{text}]"), "not an object"),
            (text.replace("\"size\":1", "\"size\":-1"), "negative size"),
            (
                as_lists(&image()).to_string(),
                "descriptors without field names",
            ),
            (String::new(), "nothing"),
        ] {
            let outcome = Manifest::parse(bad.as_bytes(), None);
            assert!(
                matches!(outcome, Err(ManifestError::Json(_))),
                "{what}: {outcome:?}"
            );
        }
    }

    /// Guards: what the registered types demand, and that schema 1 and odd digests are named as such.
    #[test]
    fn shapes_that_contradict_the_type_are_refused() {
        let without = |key: &str| {
            let mut document = image();
            document.as_object_mut().unwrap().remove(key);
            parse(&document, Some(OCI_MANIFEST))
        };
        assert!(matches!(without("config"), Err(ManifestError::Shape(_))));
        assert!(matches!(
            without("schemaVersion"),
            Err(ManifestError::Shape(_))
        ));
        let with = |key: &str, value: Value| {
            let mut document = image();
            document[key] = value;
            parse(&document, None)
        };
        assert_eq!(
            with("schemaVersion", json!(1)),
            Err(ManifestError::SchemaVersion(1))
        );
        assert!(matches!(
            with("mediaType", json!(OCI_INDEX)),
            Err(ManifestError::Shape(_))
        ));
        for odd in ["application/vnd.x+json;a=b", " application/vnd.x+json"] {
            let odd = with("mediaType", json!(odd));
            assert!(matches!(odd, Err(ManifestError::MediaType(_))), "{odd:?}");
        }
        let odd = with("subject", json!({"digest": "md5:00", "size": 0}));
        assert!(matches!(
            odd,
            Err(ManifestError::Digest {
                place: "subject",
                ..
            })
        ));
        assert!(matches!(
            with("artifactType", json!("x".repeat(1025))),
            Err(ManifestError::TooMany { .. })
        ));
    }

    proptest! {
        /// Guards: no bytes make the parser panic.
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..60),
                                text in "[{}\\[\\]\",:a0 ]{0,40}") {
            drop(Manifest::parse(&bytes, None));
            drop(Manifest::parse(text.as_bytes(), Some(OCI_INDEX)));
        }
    }
}
