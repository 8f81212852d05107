//! Fuzz target for the JSON of a manifest and its media type.
//!
//! The input: the Content-Type up to the end of a line (none if it is empty), then the document. Checked: an accepted
//! document is read the same a second time, also under its media type, and the same by clients in Go. Its limits hold,
//! it is served as JSON, and an error does not repeat the document.

use std::collections::BTreeMap;

use tonnage_engine::limits::MANIFEST_CHILDREN_MAX;
use tonnage_server::oci::{Digest, Kind, Manifest, MediaType, stored_annotations};

use super::go_json::{Reading, Value};

const REFUSAL_BYTES_MAX: usize = 2048;
const ARTIFACT_TYPE_BYTES_MAX: usize = 1024;

/// Runs the target on one manifest.
pub fn run(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (header, document) = bytes.split_at(end);
    let document = document.strip_prefix(b"\n").unwrap_or(document);
    let header = std::str::from_utf8(header).ok();
    let header = header.and_then(|text| text.parse::<MediaType>().ok());
    let content_type = header.as_ref().map(MediaType::as_str);
    let manifest = match Manifest::parse(document, content_type) {
        Ok(manifest) => manifest,
        Err(error) => {
            let refusal = error.to_string();
            assert!(refusal.len() <= REFUSAL_BYTES_MAX, "{refusal}");
            return;
        }
    };
    let stored = Some(manifest.media_type.as_str());
    assert_eq!(
        Manifest::parse(document, content_type).as_ref(),
        Ok(&manifest)
    );
    assert_eq!(Manifest::parse(document, stored).as_ref(), Ok(&manifest));
    assert_eq!(
        stored_annotations(document).as_ref(),
        Ok(&manifest.annotations)
    );
    assert!(manifest.children.len() <= MANIFEST_CHILDREN_MAX);
    let artifact_type = serde_json::to_string(&manifest.artifact_type).unwrap_or_default();
    assert!(artifact_type.len() <= ARTIFACT_TYPE_BYTES_MAX + 2);
    assert!(manifest.media_type.is_json());
    let image = manifest.media_type.is_image();
    let index = manifest.media_type.is_index();
    assert!(!image || manifest.kind == Kind::Image);
    assert!(!index || manifest.kind == Kind::Index);
    let text =
        std::str::from_utf8(document).unwrap_or_else(|_| panic!("Go replaces some of its bytes"));
    let value = Value::parse(text).unwrap_or_else(|_| panic!("Go rejects its syntax"));
    let reading = value
        .manifest()
        .unwrap_or_else(|_| panic!("Go rejects a field"));
    agree(&manifest, &reading);
}

/// Checks that the registry and Go's reader found the same.
fn agree(manifest: &Manifest, reading: &Reading<'_>) {
    let known = manifest.media_type.is_image() || manifest.media_type.is_index();
    assert!(!known || reading.schema_version == 2);
    let named = reading.media_type;
    assert!(named.is_empty() || manifest.media_type.as_str().eq_ignore_ascii_case(named));
    assert!(manifest.kind != Kind::Image || reading.config.is_some());
    let lists = [&reading.layers, &reading.blobs, &reading.manifests];
    let listed = reading.config.iter().chain(lists.into_iter().flatten());
    let mut digests = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for (_, digest) in listed {
        let digest: Digest = digest
            .parse()
            .unwrap_or_else(|_| panic!("{digest:?} was accepted"));
        if known.insert(digest) {
            digests.push(digest);
        }
    }
    let children: Vec<Digest> = manifest.children.iter().map(|child| child.digest).collect();
    assert_eq!(children, digests, "children");
    let subject = reading.subject.map(|(_, digest)| digest.to_owned());
    assert_eq!(manifest.subject.map(|digest| digest.to_string()), subject);
    let config = reading.config.map_or("", |(media_type, _)| media_type);
    let artifact_type = match (reading.artifact_type, manifest.kind) {
        ("", Kind::Image) => config,
        (own, _) => own,
    };
    assert_eq!(
        manifest.artifact_type.as_deref().unwrap_or_default(),
        artifact_type
    );
    let annotations: BTreeMap<&str, &str> = manifest
        .annotations
        .iter()
        .map(|(key, text)| (key.as_str(), text.as_str()))
        .collect();
    assert_eq!(annotations, reading.annotations);
}
