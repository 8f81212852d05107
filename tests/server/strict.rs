//! Requests that look valid and are not: weak entity tags where strong ones are required, empty range sets, lists for
//! objects.

use http::Method;
use serde_json::json;
use tonnage_tests::client::whole;
use tonnage_tests::registry::TestRegistry;

use crate::{CONFIG, MANIFEST, push_blob, push_image, push_layers, sha256};

/// Guards: RFC 9110 sections 8.8.3.2 and 13.1.1: a weak entity tag never moves or deletes a tag. A pull by a tag that
/// has moved since is 412, not a part of other content.
#[tokio::test(flavor = "multi_thread")]
async fn weak_entity_tags_change_nothing() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let one = push_image(&client, "a", "t", b"one").await;
    let two = push_layers(&client, "a", &[b"two"]).await.to_string();
    let path = "/v2/a/manifests/t";
    for method in [Method::PUT, Method::DELETE] {
        let call = client
            .call(method, path)
            .header("content-type", MANIFEST)
            .header("if-match", format!("W/\"{one}\""));
        call.body(whole(two.clone())).send().await.expect(412);
    }
    let ask = |method: Method, tag: String| client.call(method, path).header("if-match", tag);
    let resumed = ask(Method::GET, format!("\"{one}\"")).header("range", "bytes=5-");
    resumed.send().await.expect(206);
    for tag in [
        format!("W/\"{one}\""),
        format!("\"{}\"", sha256(two.as_bytes())),
    ] {
        ask(Method::GET, tag.clone()).send().await.expect(412);
        ask(Method::HEAD, tag).send().await.expect(412);
    }
    let answer = client.head(path).await.expect(200);
    assert_eq!(answer.header("docker-content-digest"), one.to_string());
}

/// Guards: RFC 9110 sections 14.1.1 and 14.2: a Range without any range, or two Range headers, are ignored.
#[tokio::test(flavor = "multi_thread")]
async fn empty_and_doubled_ranges_are_ignored() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"content").await;
    let path = format!("/v2/a/blobs/{digest}");
    for range in ["bytes=", "bytes=,", "bytes= "] {
        let call = client.call(Method::GET, &path).header("range", range);
        assert_eq!(&call.send().await.expect(200).body[..], b"content");
    }
    let twice = client
        .call(Method::GET, &path)
        .header("range", "bytes=0-1")
        .header("range", "bytes=2-3");
    assert_eq!(&twice.send().await.expect(200).body[..], b"content");
}

/// Guards: spec, "Pushing Manifests": a descriptor must be an object; other readers do not accept a list of its values.
#[tokio::test(flavor = "multi_thread")]
async fn descriptors_are_objects() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut manifest = push_layers(&client, "a", &[b"one"]).await;
    manifest["config"] = json!([CONFIG, sha256(b"{}").to_string(), 2]);
    let call = client
        .call(Method::PUT, "/v2/a/manifests/t")
        .header("content-type", MANIFEST);
    let answer = call.body(whole(manifest.to_string())).send().await;
    answer.expect_error(400, "MANIFEST_INVALID");
}

/// Guards: spec, "Enabling the Referrers API": an entry of a fallback tag that has a subject is among the referrers,
/// whether or not the subject exists. One without a subject is not.
#[tokio::test(flavor = "multi_thread")]
async fn entries_of_fallback_tags_are_referrers() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let subject = push_image(&client, "a", "t", b"subject").await;
    let mut referrer = push_layers(&client, "a", &[b"sbom"]).await;
    let stranger = crate::put_manifest(&client, "a", "stranger", &referrer).await;
    referrer["subject"] =
        json!({"mediaType": MANIFEST, "digest": subject.to_string(), "size": 100});
    referrer["artifactType"] = json!("application/x.sbom");
    let text = referrer.to_string();
    let digest = sha256(text.as_bytes());
    let entry = |digest: &tonnage_engine::Digest| json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": text.len()});
    let path = format!("/v2/a/manifests/{digest}");
    let call = client
        .call(Method::PUT, &path)
        .header("content-type", MANIFEST);
    call.body(whole(text.clone())).send().await.expect(201);
    let fallback = subject.to_string().replace(':', "-");
    let index = json!({
        "schemaVersion": 2, "mediaType": crate::INDEX, "manifests": [entry(&digest), entry(&stranger)],
    });
    crate::put_manifest(&client, "a", &fallback, &index).await;
    let answer = client.get(&format!("/v2/a/referrers/{subject}")).await;
    let listed = answer.expect(200).json();
    let listed = listed["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["digest"], digest.to_string());
    assert_eq!(listed[0]["artifactType"], "application/x.sbom");
}
