//! The distribution API over real sockets, on the real engine. Each test names the clause that it checks; "spec" is
//! the OCI distribution specification, main branch.

mod access;
mod authentication;
mod base;
mod blobs;
mod bounds;
mod cancel;
mod clauses;
mod client_certificates;
mod closing;
mod concurrent;
mod content;
mod delete;
mod failures;
mod guarded;
mod heads;
mod kept_answers;
mod large;
mod leases;
mod manifests;
mod matrix;
mod mount;
mod namespaces;
mod queries;
mod referrers;
mod repositories;
mod serial;
mod slots;
mod sparse;
mod strict;
mod tags;
mod takeover;
mod tls;
mod tokens;
mod transport;
mod unread;
mod uploads;
mod whence;
mod wire;
mod workloads;

use serde_json::{Value, json};
use tonnage_engine::{Algorithm, Digest};
use tonnage_tests::client::Client;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

/// Returns content that differs for each seed and is the same in every run.
fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| (n / 251).wrapping_mul(31).wrapping_add(n).to_le_bytes()[0] ^ seed)
        .collect()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(content).to_string(), "size": content.len()})
}

/// Pushes a blob in one request.
async fn push_blob(client: &Client, name: &str, content: &[u8]) -> Digest {
    let digest = sha256(content);
    let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
    let call = client.call(http::Method::POST, &path);
    call.body(tonnage_tests::client::whole(content.to_vec()))
        .send()
        .await
        .expect(201);
    digest
}

/// Pushes the config `{}` and these layers. Returns the manifest of an image of them.
async fn push_layers(client: &Client, name: &str, layers: &[&[u8]]) -> Value {
    push_blob(client, name, b"{}").await;
    for layer in layers {
        push_blob(client, name, layer).await;
    }
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| descriptor(LAYER, layer))
        .collect();
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, b"{}"), "layers": layers,
    })
}

/// Puts a manifest and returns its digest.
async fn put_manifest(client: &Client, name: &str, reference: &str, manifest: &Value) -> Digest {
    let text = manifest.to_string();
    let media_type = manifest["mediaType"].as_str().expect("a media type");
    let path = format!("/v2/{name}/manifests/{reference}");
    let call = client
        .call(http::Method::PUT, &path)
        .header("content-type", media_type);
    call.body(tonnage_tests::client::whole(text.clone()))
        .send()
        .await
        .expect(201);
    sha256(text.as_bytes())
}

/// Pushes an image with one layer under a tag.
async fn push_image(client: &Client, name: &str, tag: &str, layer: &[u8]) -> Digest {
    let manifest = push_layers(client, name, &[layer]).await;
    put_manifest(client, name, tag, &manifest).await
}

/// Begins an upload and returns its location.
async fn begin(client: &Client, name: &str) -> String {
    let answer = client
        .post(&format!("/v2/{name}/blobs/uploads/"))
        .await
        .expect(202);
    answer.header("location").to_owned()
}
