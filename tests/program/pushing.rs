//! Pushes of blobs and manifests, each in one request.
//!
//! Owns: their paths, digests and JSON. Refuses: other shapes of pushes (`tonnage_tests::push`).

use serde_json::{Value, json};
use tonnage_engine::{Algorithm, Digest};

use crate::serving::{Serving, send};

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Returns the SHA-256 digest.
pub(crate) fn digest(content: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, content).to_string()
}

/// Pushes a blob to a repository. Returns its digest.
pub(crate) fn push_blob(server: &Serving, name: &str, content: &[u8]) -> String {
    let digest = digest(content);
    let line = format!("POST /v2/{name}/blobs/uploads/?digest={digest}");
    let pushed = send(&server.url, &line, "application/octet-stream", content);
    assert_eq!(pushed.0, 201);
    digest
}

/// Pushes blobs, and an image of them under a tag. The first is its config. Returns the manifest.
pub(crate) fn push_image(server: &Serving, name: &str, tag: &str, blobs: &[&[u8]]) -> Vec<u8> {
    for blob in blobs {
        push_blob(server, name, blob);
    }
    let config = descriptor("application/vnd.oci.image.config.v1+json", blobs[0]);
    let layers = blobs[1..].iter();
    let layers = layers.map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": config,
        "layers": layers.collect::<Vec<_>>(),
    });
    put_manifest(server, name, tag, IMAGE, &manifest)
}

/// Pushes an index of content that the repository has. Returns it.
pub(crate) fn push_index(
    server: &Serving,
    name: &str,
    tag: &str,
    media_type: &str,
    content: &[u8],
) -> Vec<u8> {
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [descriptor(media_type, content)],
    });
    put_manifest(server, name, tag, INDEX, &index)
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn put_manifest(server: &Serving, name: &str, tag: &str, media_type: &str, of: &Value) -> Vec<u8> {
    let manifest = of.to_string().into_bytes();
    let line = format!("PUT /v2/{name}/manifests/{tag}");
    let (status, body) = send(&server.url, &line, media_type, &manifest);
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    manifest
}
