//! Lists of tags and repositories.

use serde_json::json;
use tonnage_tests::registry::TestRegistry;

use crate::{push_blob, push_layers, put_manifest};

/// Guards: spec, "Listing Tags" (end-8): order, `n`, `last`, Link, `n=0`; an empty list is `[]`.
#[tokio::test(flavor = "multi_thread")]
async fn tags_page_by_page() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    push_blob(&client, "a/b", b"x").await;
    let answer = client.get("/v2/a/b/tags/list").await.expect(200);
    assert_eq!(answer.json(), json!({"name": "a/b", "tags": []}));
    let manifest = push_layers(&client, "a/b", &[]).await;
    for tag in ["b", "B", "a", "10", "9", "_"] {
        put_manifest(&client, "a/b", tag, &manifest).await;
    }
    let sorted = ["10", "9", "B", "_", "a", "b"];
    let answer = client.get("/v2/a/b/tags/list").await.expect(200);
    assert_eq!(answer.json()["tags"], json!(sorted));
    assert!(answer.lacks("link"));
    let answer = client.get("/v2/a/b/tags/list?last=9").await.expect(200);
    assert_eq!(answer.json()["tags"], json!(["B", "_", "a", "b"]));
    let answer = client.get("/v2/a/b/tags/list?n=0").await.expect(200);
    assert_eq!(answer.json()["tags"], json!([]));
    assert!(answer.lacks("link"));
    for n in [1, 2, 3, 4, 6, 7] {
        let mut path = format!("/v2/a/b/tags/list?n={n}");
        let mut all = Vec::new();
        loop {
            let answer = client.get(&path).await.expect(200);
            let tags = answer.json()["tags"].as_array().unwrap().clone();
            assert!(tags.len() <= n);
            all.extend(tags);
            if answer.lacks("link") {
                break;
            }
            let link = answer.header("link").to_owned();
            let (next, rel) = link
                .strip_prefix('<')
                .and_then(|link| link.split_once('>'))
                .unwrap();
            assert_eq!(rel, "; rel=\"next\"");
            next.clone_into(&mut path);
        }
        assert_eq!(json!(all), json!(sorted), "n={n}");
    }
}

/// Guards: `/v2/_catalog` has pages in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn repositories_page_by_page() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let answer = client.get("/v2/_catalog").await.expect(200);
    assert_eq!(answer.json(), json!({"repositories": []}));
    for name in ["b", "a/z", "a", "blobs/uploads", "tags/list"] {
        push_blob(&client, name, b"x").await;
    }
    let sorted = ["a", "a/z", "b", "blobs/uploads", "tags/list"];
    assert_eq!(
        client.get("/v2/_catalog").await.expect(200).json()["repositories"],
        json!(sorted)
    );
    let answer = client.get("/v2/_catalog?n=2&last=a").await.expect(200);
    assert_eq!(answer.json()["repositories"], json!(["a/z", "b"]));
    assert_eq!(
        answer.header("link"),
        "</v2/_catalog?n=2&last=b>; rel=\"next\""
    );
}
