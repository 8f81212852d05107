//! Manifests with very many children.

use http::Method;
use serde_json::json;
use tonnage_tests::client::whole;
use tonnage_tests::registry::TestRegistry;

use crate::{INDEX, LAYER, descriptor, push_blob, sha256};

/// Guards: spec, "Pushing manifests": large manifests, which are parsed, looked up and validated in pieces, get the
/// same answers as small ones: with all children present, with one missing, after one was deleted, and after it was
/// pushed again.
#[tokio::test(flavor = "multi_thread")]
async fn large_manifests_are_validated_as_small_ones() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blobs: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    for blob in &blobs {
        push_blob(&client, "a", blob.as_bytes()).await;
    }
    let mut entries: Vec<_> = blobs
        .iter()
        .map(|blob| descriptor(LAYER, blob.as_bytes()))
        .collect();
    let put = async |entries: &[serde_json::Value]| {
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": entries,
            "annotations": {"size": "x".repeat(200_000)},
        });
        let call = client
            .call(Method::PUT, "/v2/a/manifests/t")
            .header("content-type", INDEX);
        call.body(whole(index.to_string())).send().await
    };
    let first = put(&entries).await.expect(201);
    let again = put(&entries).await.expect(201);
    let digest = "docker-content-digest";
    assert_eq!(first.header(digest), again.header(digest));
    let held = |blob: &[u8]| registry.store.view().referenced(&sha256(blob)).unwrap();
    assert!(blobs.iter().all(|blob| held(blob.as_bytes())));
    entries.push(descriptor(LAYER, b"nowhere"));
    put(&entries)
        .await
        .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    entries.pop();
    let gone = sha256(blobs[0].as_bytes());
    client
        .delete(&format!("/v2/a/blobs/{gone}"))
        .await
        .expect(202);
    let answer = put(&entries)
        .await
        .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(
        answer.json()["errors"][0]["detail"]["digest"],
        gone.to_string()
    );
    let bad = format!("/v2/a/manifests/{gone}");
    let call = client.call(Method::PUT, &bad).header("content-type", INDEX);
    let call = call.body(whole(" ".repeat(200_000)));
    call.send().await.expect_error(400, "DIGEST_INVALID");
}

/// Guards: a push by digest that changes nothing writes a transaction that a restart can read.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_changes_nothing_survives_a_restart() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let text = crate::push_layers(&client, "a", &[b"one"])
        .await
        .to_string();
    let path = format!("/v2/a/manifests/{}", sha256(text.as_bytes()));
    for _ in 0..2 {
        let call = client
            .call(Method::PUT, &path)
            .header("content-type", crate::MANIFEST);
        call.body(whole(text.clone())).send().await.expect(201);
    }
    let registry = registry.restart().await;
    assert_eq!(registry.client().get(&path).await.expect(200).body, text);
    let call = registry.client().call(Method::PUT, &path);
    let call = call.header("content-type", crate::MANIFEST);
    call.body(whole(text)).send().await.expect(201);
}
