//! The JSON of a manifest, and the media type that it comes with.
//!
//! The input: the Content-Type up to a line's end (none if it is empty), then the document. Demanded: what is taken is read the same a
//! second time, also under the media type that it was taken as, its bounds hold, and a refusal does not give the document back.

use tonnage_engine::limits::MANIFEST_CHILDREN_MAX;
use tonnage_server::oci::{Kind, Manifest, MediaType, Role, stored_annotations};

const REFUSAL_BYTES_MAX: usize = 2048;

/// Takes one manifest.
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
    let mut digests: Vec<_> = manifest.children.iter().map(|child| child.digest).collect();
    digests.sort_unstable();
    assert!(digests.is_sorted_by(|a, b| a < b), "a child listed twice");
    let entries = manifest
        .children
        .iter()
        .any(|child| child.role == Role::Entry);
    assert!(manifest.kind == Kind::Index || !entries);
    let image = manifest.media_type.is_image();
    let index = manifest.media_type.is_index();
    assert!(!image || manifest.kind == Kind::Image);
    assert!(!index || manifest.kind == Kind::Index);
}
