//! Pushing and pulling manifests.

use http::Method;
use serde_json::{Value, json};
use tonnage_engine::{Algorithm, Digest};
use tonnage_tests::client::{Answer, Client, chunked, whole};
use tonnage_tests::registry::TestRegistry;

use crate::{INDEX, LAYER, MANIFEST, descriptor, push_blob, push_layers, put_manifest, sha256};

async fn put(client: &Client, path: &str, media_type: &str, text: &str) -> Answer {
    let call = client
        .call(Method::PUT, path)
        .header("content-type", media_type);
    call.body(whole(text.to_owned())).send().await
}

/// Guards: spec, "Pushing Manifests" (end-7a) and "Pulling manifests" (end-3): bytes and type come back exactly, by tag
/// and digest, whatever Accept says; a chunked body without a length is taken.
#[tokio::test(flavor = "multi_thread")]
async fn manifests_come_back_exactly() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let manifest = push_layers(&client, "a", &[b"one", b"two"]).await;
    let text = format!(
        "\n  {}\t\n",
        serde_json::to_string_pretty(&manifest).unwrap()
    );
    let digest = sha256(text.as_bytes());
    let call = client.call(Method::PUT, "/v2/a/manifests/latest");
    let call = call.header("content-type", format!("{MANIFEST}; charset=utf-8"));
    let answer = call
        .body(chunked(vec![text.clone().into()]))
        .send()
        .await
        .expect(201);
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert_eq!(
        answer.header("location"),
        format!("/v2/a/manifests/{digest}")
    );
    assert!(answer.lacks("oci-subject"));
    for reference in ["latest".to_owned(), digest.to_string()] {
        let path = format!("/v2/a/manifests/{reference}");
        for accept in ["*/*", INDEX, "text/html;q=0.1"] {
            let answer = client
                .call(Method::GET, &path)
                .header("accept", accept)
                .send()
                .await
                .expect(200);
            assert_eq!(answer.body, text);
            assert_eq!(answer.header("content-type"), MANIFEST);
            let answer = client
                .call(Method::HEAD, &path)
                .header("accept", accept)
                .send()
                .await
                .expect(200);
            assert_eq!(answer.header("content-type"), MANIFEST);
            assert_eq!(answer.header("content-length"), text.len().to_string());
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        }
    }
    let call = client.call(Method::GET, "/v2/a/manifests/latest");
    call.header("if-none-match", format!("\"{digest}\""))
        .send()
        .await
        .expect(304);
}

/// Guards: spec, "Pushing Manifests": what a manifest lists must be there (MANIFEST_BLOB_UNKNOWN names each); what it
/// may list without (nondistributable layers) is taken; index entries may be manifests or blobs.
#[tokio::test(flavor = "multi_thread")]
async fn children_must_be_there() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut manifest = push_layers(&client, "a", &[b"one"]).await;
    push_blob(&client, "b", b"two").await;
    manifest["layers"]
        .as_array_mut()
        .unwrap()
        .extend([descriptor(LAYER, b"two"), descriptor(LAYER, b"three")]);
    let answer = put(
        &client,
        "/v2/a/manifests/x",
        MANIFEST,
        &manifest.to_string(),
    )
    .await;
    let answer = answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    let errors = answer.json();
    let missing: Vec<&Value> = errors["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["detail"]["digest"])
        .collect();
    assert_eq!(
        missing,
        [
            &json!(sha256(b"two").to_string()),
            &json!(sha256(b"three").to_string())
        ]
    );
    client
        .get("/v2/a/manifests/x")
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");

    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    manifest["layers"] = json!([descriptor(LAYER, b"one"), descriptor(foreign, b"nowhere")]);
    let child = put_manifest(&client, "a", "x", &manifest).await;
    let entry = json!({"mediaType": MANIFEST, "digest": child.to_string(), "size": manifest.to_string().len()});
    let index =
        |entries: Value| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    put_manifest(&client, "a", "empty", &index(json!([]))).await;
    put_manifest(&client, "a", "index", &index(json!([entry]))).await;
    put_manifest(
        &client,
        "a",
        "cache",
        &index(json!([descriptor(LAYER, b"one")])),
    )
    .await;
    let text = index(json!([entry])).to_string();
    put(&client, "/v2/b/manifests/index", INDEX, &text)
        .await
        .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
}

/// Guards: documents that can be read in two ways, or contradict their request, are refused and change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_manifests_are_refused() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let manifest = push_layers(&client, "a", &[b"one"]).await;
    let text = manifest.to_string();
    let mut both = manifest.clone();
    both["manifests"] = json!([]);
    for (media_type, text) in [
        (INDEX, text.clone()),
        ("not a type", text.clone()),
        (MANIFEST, both.to_string()),
        (MANIFEST, format!("{text}{text}")),
        (
            MANIFEST,
            format!("{{\"layers\":[],{}", text.trim_start_matches('{')),
        ),
        (MANIFEST, String::new()),
    ] {
        let answer = put(&client, "/v2/a/manifests/x", media_type, &text).await;
        answer.expect_error(400, "MANIFEST_INVALID");
    }
    let digest = sha256(text.as_bytes());
    let spaced = format!("{text}  ");
    let answer = put(
        &client,
        &format!("/v2/a/manifests/{digest}"),
        MANIFEST,
        &spaced,
    )
    .await;
    answer.expect_error(400, "DIGEST_INVALID");
    let answer = put(
        &client,
        "/v2/a/manifests/sha256:baddigeststring",
        MANIFEST,
        &text,
    )
    .await;
    answer.expect_error(400, "DIGEST_INVALID");
    client
        .get("/v2/a/manifests/x")
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
}

/// Guards: spec, "Pushing Manifests": 4 MB are taken, more than the limit is 413, with and without a length.
#[tokio::test(flavor = "multi_thread")]
async fn manifests_have_a_limit() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut manifest = push_layers(&client, "a", &[]).await;
    manifest["annotations"] = json!({"big": "x".repeat(4_000_000 - 500)});
    put_manifest(&client, "a", "big", &manifest).await;
    manifest["annotations"] = json!({"big": "x".repeat(4 << 20)});
    let text = manifest.to_string();
    for body in [whole(text.clone()), chunked(vec![text.clone().into()])] {
        let call = client
            .call(Method::PUT, "/v2/a/manifests/big")
            .header("content-type", MANIFEST);
        call.body(body)
            .send()
            .await
            .expect_error(413, "SIZE_INVALID");
    }
}

/// Guards: spec, end-7b: tags of a push by digest, for sha512 the only way to a tag; all of them come back in OCI-Tag.
#[tokio::test(flavor = "multi_thread")]
async fn tags_of_a_push_by_digest() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let text = push_layers(&client, "a", &[b"one"]).await.to_string();
    let digest = Digest::of(Algorithm::Sha512, text.as_bytes());
    let tags: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
    let path = format!("/v2/a/manifests/{digest}?tag={}", tags.join("&tag="));
    let answer = put(&client, &path, MANIFEST, &text).await.expect(201);
    let set: Vec<_> = answer
        .headers
        .get_all("oci-tag")
        .iter()
        .map(|tag| tag.to_str().unwrap())
        .collect();
    assert_eq!(set, tags);
    for tag in &tags {
        let answer = client
            .head(&format!("/v2/a/manifests/{tag}"))
            .await
            .expect(200);
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    }
    let bad = format!("/v2/a/manifests/{digest}?tag=ok&tag=.bad");
    put(&client, &bad, MANIFEST, &text)
        .await
        .expect_error(400, "MANIFEST_INVALID");
    client.head("/v2/a/manifests/ok").await.expect(404);
    let many = format!(
        "/v2/a/manifests/{digest}?tag={}",
        vec!["t"; 65].join("&tag=")
    );
    put(&client, &many, MANIFEST, &text).await.expect(414);
}

/// Guards: safe compare-and-set of a tag: If-Match and If-None-Match on PUT and DELETE answer 412 and change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn tags_move_under_conditions() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let one = push_layers(&client, "a", &[b"one"]).await.to_string();
    let two = push_layers(&client, "a", &[b"two"]).await.to_string();
    let etag = |text: &str| format!("\"{}\"", sha256(text.as_bytes()));
    let put_if = |text: &str, name: &'static str, value: String| {
        let call = client
            .call(Method::PUT, "/v2/a/manifests/t")
            .header("content-type", MANIFEST);
        call.header(name, value).body(whole(text.to_owned())).send()
    };
    put_if(&one, "if-match", "*".to_owned())
        .await
        .expect_error(412, "MANIFEST_INVALID");
    put_if(&one, "if-none-match", "*".to_owned())
        .await
        .expect(201);
    put_if(&two, "if-none-match", "*".to_owned())
        .await
        .expect(412);
    put_if(&two, "if-match", etag(&two)).await.expect(412);
    let answer = client.head("/v2/a/manifests/t").await.expect(200);
    assert_eq!(answer.header("etag"), etag(&one));
    put_if(&two, "if-match", format!("{}, {}", etag("x"), etag(&one)))
        .await
        .expect(201);
    let delete_if = |value: String| {
        client
            .call(Method::DELETE, "/v2/a/manifests/t")
            .header("if-match", value)
            .send()
    };
    delete_if(etag(&one)).await.expect(412);
    delete_if(etag(&two)).await.expect(202);
}
