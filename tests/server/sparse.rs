//! Manifests whose content is not there, where the operator allows them.

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

/// An image of which nothing is pushed.
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

/// Guards: spec, "Pushing manifests" (a registry MAY reject dangling descriptors): refused everywhere but where the operator
/// says, images and indexes alike; there the answer warns and says of how many, until all is there.
#[tokio::test(flavor = "multi_thread")]
async fn sparse_manifests_are_taken_where_allowed() {
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

/// Guards: naming a digest that only another repository has shows nothing of it, neither its bytes nor that it exists.
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

/// Guards: the edges of a manifest lead to all that it lists, there or not, so that what is pushed later is referenced at once;
/// they go with the manifest, and with the repository's rows every reverse (`fsck` finds nothing).
#[tokio::test(flavor = "multi_thread")]
async fn edges_lead_to_what_is_not_there_yet() {
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
    // A layer that may be left out everywhere, and comes later.
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
