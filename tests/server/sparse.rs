//! Manifests without their content, where the operator allows them.

use http::Method;
use serde_json::{Value, json};
use tonnage_engine::Digest;
use tonnage_engine::fsck::{self, FsckOptions};
use tonnage_server::ServerOptions;
use tonnage_server::registry::Limits;
use tonnage_tests::client::{Answer, Client, whole};
use tonnage_tests::registry::TestRegistry;

use crate::{CONFIG, INDEX, LAYER, MANIFEST, descriptor, push_blob, push_image, sha256};

async fn registry() -> TestRegistry {
    let limits = Limits {
        sparse: vec!["one".parse().unwrap(), "below/*".parse().unwrap()],
        ..Limits::default()
    };
    TestRegistry::with(ServerOptions {
        limits,
        ..ServerOptions::default()
    })
    .await
}

/// Returns the manifest of an image of which nothing is pushed.
fn image() -> Value {
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, b"{}"),
        "layers": [descriptor(LAYER, b"one"), descriptor(LAYER, b"two")],
    })
}

async fn put(client: &Client, name: &str, manifest: &Value) -> Answer {
    let call = client.call(Method::PUT, &format!("/v2/{name}/manifests/t"));
    let media_type = manifest["mediaType"].as_str().unwrap();
    let call = call.header("content-type", media_type);
    call.body(whole(manifest.to_string())).send().await
}

/// Guards: spec, "Pushing manifests" (a registry MAY reject dangling descriptors): images and indexes without their
/// content are rejected except in configured repositories. There the answer warns with the number of missing blobs
/// until all exist.
#[tokio::test(flavor = "multi_thread")]
async fn sparse_manifests_are_accepted_where_allowed() {
    let registry = registry().await;
    let client = registry.client();
    for name in ["other", "below", "one/more", "onemore"] {
        let refused = put(&client, name, &image()).await;
        refused.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
        client
            .get(&format!("/v2/{name}/manifests/t"))
            .await
            .expect(404);
    }
    for name in ["one", "below/a", "below/a/b"] {
        push_blob(&client, name, b"{}").await;
        let answer = put(&client, name, &image()).await.expect(201);
        let warning = answer.header("warning");
        assert!(warning.starts_with("299 - \"2 of the blobs"), "{warning}");
        assert!(warning.contains(name), "{warning}");
        let answer = client
            .get(&format!("/v2/{name}/manifests/t"))
            .await
            .expect(200);
        assert_eq!(answer.body, image().to_string());
        let layer = format!("/v2/{name}/blobs/{}", sha256(b"one"));
        client.get(&layer).await.expect_error(404, "BLOB_UNKNOWN");
        push_blob(&client, name, b"one").await;
        client.get(&layer).await.expect(200);
        push_blob(&client, name, b"two").await;
        assert!(
            put(&client, name, &image())
                .await
                .expect(201)
                .lacks("warning")
        );
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, b"nowhere")],
        });
        put(&client, name, &index)
            .await
            .expect(201)
            .header("warning");
    }
}

/// Guards: a manifest with a digest that only another repository has reveals neither its bytes nor its existence.
#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_manifest_shows_nothing_of_other_repositories() {
    let registry = registry().await;
    let client = registry.client();
    push_blob(&client, "secret", b"one").await;
    push_blob(&client, "one", b"{}").await;
    let answer = put(&client, "one", &image()).await.expect(201);
    assert!(answer.header("warning").starts_with("299 - \"2 of"));
    for method in [Method::GET, Method::HEAD] {
        let path = format!("/v2/one/blobs/{}", sha256(b"one"));
        client.call(method, &path).send().await.expect(404);
    }
}

/// Guards: a manifest has edges to all that it lists, present or not, so that a blob pushed later is referenced at
/// once. The edges are removed with the manifest or the repository (`fsck` finds nothing).
#[tokio::test(flavor = "multi_thread")]
async fn edges_lead_to_absent_blobs() {
    let registry = registry().await;
    let client = registry.client();
    let held = |digest: &Digest| registry.store.view().referenced(digest).unwrap();
    let layer = sha256(b"one");
    put(&client, "one", &image()).await.expect(201);
    assert!(held(&layer) && registry.store.view().blob(&layer).unwrap().is_none());
    push_blob(&client, "one", b"one").await;
    assert!(held(&layer));
    client.delete("/v2/one/manifests/t").await.expect(202);
    let digest = sha256(image().to_string().as_bytes());
    client
        .delete(&format!("/v2/one/manifests/{digest}"))
        .await
        .expect(202);
    assert!(!held(&layer) && !held(&sha256(b"two")));

    put(&client, "below/a", &image()).await.expect(201);
    // A layer that may be missing everywhere, and is pushed later.
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    let subject = push_image(&client, "other", "s", b"layer").await;
    push_blob(&client, "other", b"{}").await;
    let mut manifest = image();
    manifest["layers"] = json!([descriptor(foreign, b"later")]);
    manifest["subject"] = json!({"mediaType": MANIFEST, "digest": subject.to_string(), "size": 1});
    assert!(
        put(&client, "other", &manifest)
            .await
            .expect(201)
            .lacks("warning")
    );
    assert!(held(&sha256(b"later")));
    let directory = registry.stop().await;
    let env = tonnage_server::runtime::env().unwrap();
    let data = directory.path().join("data");
    let options = FsckOptions { deep: true };
    let report = fsck::check(&env, &data, options, &|_, _| {}).await.unwrap();
    assert!(report.is_sound() && report.manifests == 3, "{report:?}");
}
