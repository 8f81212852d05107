//! Deletion of tags, manifests and blobs (spec, "Content Management": end-9, end-10).

use bytes::Bytes;
use serde_json::json;
use tonnage_engine::fsck::{self, FsckOptions};
use tonnage_engine::{Algorithm, Batch, Change, FinishedBlob, ManifestEntry, Origin};
use tonnage_tests::client::Client;
use tonnage_tests::registry::TestRegistry;

use crate::{content, push_blob, push_image, sha256};

fn batch(staged: Vec<FinishedBlob>, changes: Vec<Change>) -> Batch<FinishedBlob> {
    Batch {
        repository: "a".to_owned(),
        create_repository: false,
        requires: vec![],
        staged,
        changes,
        origin: Origin::default(),
    }
}

async fn tags(client: &Client) -> serde_json::Value {
    client.get("/v2/a/tags/list").await.expect(200).json()["tags"].clone()
}

/// Waits until the background task has removed the rows of what was deleted.
async fn wait_for_row_removal(registry: &TestRegistry) {
    while registry.store.stats().await.unwrap().deletions_unfinished > 0 {
        tokio::task::yield_now().await;
    }
}

/// Guards: spec, "Deleting Manifests": a manifest with more tags than one transaction holds is deleted like any other,
/// with all tags at once. If it is pushed again before its rows are removed, it has only its new tag.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_very_many_tags() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    push_image(&client, "a", "other", b"another").await;
    let digest = push_image(&client, "a", "t", b"layer").await;
    for many in 0..2 {
        let set = (0..24_000).map(|n| Change::SetTag {
            tag: format!("{:0128}", many * 24_000 + n),
            digest,
        });
        let set = registry.store.commit(batch(vec![], set.collect())).await;
        set.expect("they fit");
    }
    let path = format!("/v2/a/manifests/{digest}");
    client.delete(&path).await.expect(202);
    for reference in ["t", &format!("{:0128}", 0), &format!("{:0128}", 47_999)] {
        let path = format!("/v2/a/manifests/{reference}");
        client
            .get(&path)
            .await
            .expect_error(404, "MANIFEST_UNKNOWN");
        client
            .delete(&path)
            .await
            .expect_error(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(tags(&client).await, json!(["other"]));
    push_image(&client, "a", "t", b"layer").await;
    push_image(&client, "a", &format!("{:0128}", 40_000), b"another").await;
    let now = json!([format!("{:0128}", 40_000), "other", "t"]);
    assert_eq!(tags(&client).await, now);
    wait_for_row_removal(&registry).await;
    assert_eq!(tags(&client).await, now);
    client.delete(&path).await.expect(202);
    client.head("/v2/a/manifests/t").await.expect(404);
    let directory = registry.stop().await;
    let env = tonnage_server::runtime::env().unwrap();
    let data = directory.path().join("data");
    let options = FsckOptions { deep: true };
    let report = fsck::check(&env, &data, options, &|_, _| {}).await.unwrap();
    assert!(report.is_sound() && report.tags == 2, "{report:?}");
}

/// Guards: a manifest with very many edges is deleted in the same way. Its edges keep nothing alive after their
/// removal. If it is pushed again, its new edges stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_very_many_edges() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    push_image(&client, "a", "other", b"another").await;
    let store = &registry.store;
    let children: Vec<_> = (0..3000_u32).map(|n| sha256(&n.to_le_bytes())).collect();
    let put = async || {
        let text = Bytes::from_static(b"text");
        let blob = store.put_small(text, Algorithm::Sha256).await.unwrap();
        let entry = ManifestEntry {
            digest: blob.digest(),
            size: 4,
            children: children.clone(),
            subject: None,
            attributes: Bytes::new(),
        };
        let batch = batch(vec![blob], vec![Change::PutManifest(entry)]);
        store.commit(batch).await.expect("it is put");
    };
    let delete = || store.commit(batch(vec![], vec![Change::DeleteManifest(sha256(b"text"))]));
    let held = || {
        let view = store.view();
        let held = children
            .iter()
            .filter(|child| view.referenced(child).unwrap());
        held.count()
    };
    put().await;
    delete().await.expect("it is there");
    delete().await.expect_err("it is gone");
    put().await;
    wait_for_row_removal(&registry).await;
    assert_eq!(held(), 3000);
    delete().await.expect("it is there");
    wait_for_row_removal(&registry).await;
    assert_eq!(held(), 0);
}

/// Guards: deletion of a tag keeps its manifest. Deletion of a manifest removes all its tags. Both are visible at once.
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

/// Guards: deletion of a blob removes it from one repository only, and it can be pushed again.
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
