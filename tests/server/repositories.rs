//! Deletion of repositories and tags by an operator, as clients see it.

use http::Method;
use serde_json::json;
use tonnage_engine::{Batch, Change, Error, Origin, Require, Store};
use tonnage_server::admin::{
    AdminError, DeleteRepository, DeleteTags, OpenStore, Operation, RepositoryContent, execute,
};
use tonnage_tests::client::whole;
use tonnage_tests::registry::TestRegistry;

use crate::{MANIFEST, begin, push_blob, push_image, push_layers, put_manifest, sha256};

/// Carries out an admin operation on an open store.
async fn ask<O: Operation>(store: &Store, operation: O) -> Result<O::Answer, AdminError> {
    let answer = execute(&OpenStore::new(store.clone()), operation.into()).await?;
    Ok(O::answer(answer).expect("the answer to this operation"))
}

pub(crate) async fn delete_repository(
    store: &Store,
    name: &str,
) -> Result<RepositoryContent, AdminError> {
    let repository = name.to_owned();
    let dry_run = false;
    ask(
        store,
        DeleteRepository {
            repository,
            dry_run,
        },
    )
    .await
}

/// Guards: a deleted repository is absent from every list and answer at once, none of its blobs can be mounted, and
/// other repositories are unchanged. A repository created under its name is empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_repository_is_gone() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_image(&client, "team/a", "t", b"layer").await;
    let mut referrer = push_layers(&client, "team/a", &[]).await;
    referrer["subject"] = json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 1});
    put_manifest(&client, "team/a", "r", &referrer).await;
    push_blob(&client, "team/a", b"only here").await;
    push_image(&client, "team/a/b", "t", b"layer").await;
    let held = delete_repository(&registry.store, "team/a").await;
    let expected = RepositoryContent {
        tags: 2,
        manifests: 2,
        blobs: 3,
    };
    assert_eq!(held.expect("the repository exists"), expected);

    let catalog = client.get("/v2/_catalog").await.expect(200);
    assert_eq!(catalog.json(), json!({"repositories": ["team/a/b"]}));
    for path in ["/v2/team/a/tags/list", "/v2/team/a/manifests/t"] {
        client.get(path).await.expect_error(404, "NAME_UNKNOWN");
    }
    let path = format!("/v2/team/a/manifests/{digest}");
    client.get(&path).await.expect_error(404, "NAME_UNKNOWN");
    client.delete(&path).await.expect_error(404, "NAME_UNKNOWN");
    let listed = client.get(&format!("/v2/team/a/referrers/{digest}")).await;
    assert_eq!(listed.expect(200).json()["manifests"], json!([]));
    let only = sha256(b"only here");
    for name in ["team/a", "team/a/b"] {
        let path = format!("/v2/{name}/blobs/{only}");
        client.get(&path).await.expect_error(404, "BLOB_UNKNOWN");
    }
    for query in ["", "&from=team/a"] {
        let path = format!("/v2/c/blobs/uploads/?mount={only}{query}");
        client.post(&path).await.expect(202);
    }
    let path = format!("/v2/team/a/b/blobs/{}", sha256(b"layer"));
    client.get(&path).await.expect(200);

    push_blob(&client, "team/a", b"new").await;
    let tags = client.get("/v2/team/a/tags/list").await.expect(200);
    assert_eq!(tags.json()["tags"], json!([]));
    client
        .head(&format!("/v2/team/a/blobs/{only}"))
        .await
        .expect(404);
    let registry = registry.restart().await;
    let tags = registry.client().get("/v2/team/a/tags/list").await;
    assert_eq!(tags.expect(200).json()["tags"], json!([]));
    delete_repository(&registry.store, "team/z")
        .await
        .expect_err("the repository does not exist");
}

/// Guards: pushes that are active while their repository is deleted: an upload continues and creates the repository
/// again. A manifest whose blobs are gone is rejected with their names, after which clients push those again.
#[tokio::test(flavor = "multi_thread")]
async fn active_pushes_start_over() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let manifest = push_layers(&client, "a", &[b"one"]).await;
    let upload = begin(&client, "a").await;
    client.patch(&upload, "tw").await.expect(202);
    delete_repository(&registry.store, "a")
        .await
        .expect("the repository exists");
    client
        .put(&format!("{upload}?digest={}", sha256(b"two")), "o")
        .await
        .expect(201);
    let put = || {
        let call = client
            .call(Method::PUT, "/v2/a/manifests/t")
            .header("content-type", MANIFEST);
        call.body(whole(manifest.to_string())).send()
    };
    let refused = put().await.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(refused.json()["errors"].as_array().unwrap().len(), 2);
    push_layers(&client, "a", &[b"one"]).await;
    put().await.expect(201);
    let blob = format!("/v2/a/blobs/{}", sha256(b"two"));
    client.get(&blob).await.expect(200);
}

/// Guards: the answer to the deletion of a tag names the digest that the tag had at that moment, also while another
/// client moves the tag.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tag_is_reported_with_its_last_digest() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for round in 0..20 {
        let mut at = push_image(&client, "a", "t", b"one").await;
        let mut next = push_image(&client, "a", "other", b"two").await;
        let store = registry.store.clone();
        let mover = tokio::spawn(async move {
            loop {
                let tag = "t".to_owned();
                let moved = store.commit(Batch {
                    repository: "a".to_owned(),
                    create_repository: false,
                    requires: vec![Require::Tag {
                        tag: tag.clone(),
                        digest: Some(at),
                    }],
                    staged: vec![],
                    changes: vec![Change::SetTag { tag, digest: next }],
                    origin: Origin::default(),
                });
                match moved.await {
                    Ok(_) => (at, next) = (next, at),
                    Err(Error::Unmet(_)) => return at,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let deletion = DeleteTags {
            repository: "a".to_owned(),
            tags: vec!["t".to_owned()],
            dry_run: false,
        };
        let deleted = ask(&registry.store, deletion)
            .await
            .expect("the tag exists");
        let last = mover.await.expect("the mover ends");
        assert_eq!(deleted.tags[0].digest, last.to_string(), "round {round}");
    }
}
