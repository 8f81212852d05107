//! Deleting (spec, "Content Management": end-9, end-10).

use tonnage_tests::registry::TestRegistry;

use crate::{content, push_blob, push_image, sha256};

/// Guards: a tag's deletion leaves its manifest; a manifest's takes all tags along; both at once visible.
#[tokio::test(flavor = "multi_thread")]
async fn tags_and_manifests() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_image(&client, "a", "one", b"layer").await;
    push_image(&client, "a", "two", b"layer").await;
    push_image(&client, "a", "three", b"layer").await;
    push_image(&client, "a", "other", b"another").await;
    client.delete("/v2/a/manifests/one").await.expect(202);
    client
        .get("/v2/a/manifests/one")
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
    client
        .delete("/v2/a/manifests/one")
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
    client
        .get(&format!("/v2/a/manifests/{digest}"))
        .await
        .expect(200);
    let answer = client
        .delete(&format!("/v2/a/manifests/{digest}"))
        .await
        .expect(202);
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    for reference in ["two", "three", &digest.to_string()] {
        client
            .head(&format!("/v2/a/manifests/{reference}"))
            .await
            .expect(404);
    }
    client
        .delete(&format!("/v2/a/manifests/{digest}"))
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
    let answer = client.get("/v2/a/tags/list").await.expect(200);
    assert_eq!(answer.json()["tags"], serde_json::json!(["other"]));
}

/// Guards: a blob's deletion takes it out of one repository, and it can be pushed again.
#[tokio::test(flavor = "multi_thread")]
async fn blobs() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for length in [0, 10, 9 << 20] {
        let blob = content(1, length);
        let digest = push_blob(&client, "a", &blob).await;
        push_blob(&client, "b", &blob).await;
        let path = format!("/v2/a/blobs/{digest}");
        client.delete(&path).await.expect(202);
        client.head(&path).await.expect(404);
        client.delete(&path).await.expect_error(404, "BLOB_UNKNOWN");
        client
            .head(&format!("/v2/b/blobs/{digest}"))
            .await
            .expect(200);
        push_blob(&client, "a", &blob).await;
        assert_eq!(sha256(&client.get(&path).await.expect(200).body), digest);
    }
}
