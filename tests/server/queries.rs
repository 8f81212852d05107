//! Query parameters that are empty or invalid, and paths that are almost right.

use http::Method;
use tonnage_tests::registry::TestRegistry;

use crate::{push_blob, push_image, sha256};

/// Guards: a parameter without a value counts as absent, as in other registries.
#[tokio::test(flavor = "multi_thread")]
async fn parameters_without_a_value_are_not_given() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_image(&client, "a", "t", b"one").await;
    for path in [
        "/v2/_catalog?n=",
        "/v2/_catalog?n",
        "/v2/_catalog?n=&last=",
        "/v2/a/tags/list?n",
        &format!("/v2/a/referrers/{digest}?artifactType=&last="),
    ] {
        let answer = client.get(path).await.expect(200);
        assert!(
            answer.lacks("link") && answer.lacks("oci-filters-applied"),
            "{path}"
        );
    }
    client.get("/v2/_catalog?n=0").await.expect(200);
    for bad in ["x", "-1", "+1", "1.0", "%20"] {
        let path = format!("/v2/_catalog?n={bad}");
        client.get(&path).await.expect_error(400, "UNSUPPORTED");
    }
    let path = "/v2/a/blobs/uploads/?digest-algorithm=&mount=&from=";
    client.post(path).await.expect(202);
}

/// Guards: spec, "Mounting a blob from another repository": a mount that fails begins an upload, also for an invalid
/// digest.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_mount_begins_an_upload() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    push_blob(&client, "b", b"content").await;
    for mount in [
        "",
        "x",
        "sha256:x",
        "md5:0123456789abcdef0123456789abcdef",
        "%2F",
    ] {
        let path = format!("/v2/a/blobs/uploads/?mount={mount}&from=b");
        let location = client.post(&path).await.expect(202);
        let path = format!("{}?digest={}", location.header("location"), sha256(b"ab"));
        client.put(&path, "ab").await.expect(201);
    }
    let digest = sha256(b"whole");
    let path = format!("/v2/a/blobs/uploads/?mount=&digest={digest}");
    let call = client.call(Method::POST, &path);
    let whole = tonnage_tests::client::whole("whole");
    call.body(whole).send().await.expect(201);
}

/// Guards: spec, "Pushing a blob monolithically": a POST with a digest and no content does not claim that the content
/// is empty. It begins an upload, or is done if the repository has the blob; a blob of another repository does not
/// count.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_without_content_begins_an_upload() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "b", b"content").await;
    let path = |name: &str, digest| format!("/v2/{name}/blobs/uploads/?digest={digest}");
    let begun = client.post(&path("a", digest)).await.expect(202);
    client
        .head(&format!("/v2/a/blobs/{digest}"))
        .await
        .expect(404);
    let location = format!("{}?digest={digest}", begun.header("location"));
    client.put(&location, "content").await.expect(201);
    let done = client.post(&path("a", digest)).await.expect(201);
    assert_eq!(done.header("docker-content-digest"), digest.to_string());
    let empty = sha256(b"");
    client.post(&path("a", empty)).await.expect(201);
    client
        .get(&format!("/v2/a/blobs/{empty}"))
        .await
        .expect(200);
    let call = client.call(Method::POST, &path("a", sha256(b"absent")));
    call.send_h2().await.expect(202);
}

/// Guards: RFC 9110 section 14.1.2: the suffix range of an empty blob is empty, and every other range of it is 416.
#[tokio::test(flavor = "multi_thread")]
async fn suffixes_of_an_empty_blob() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"").await;
    for (range, status) in [
        ("bytes=-5", 200),
        ("bytes=-1,-2", 200),
        ("bytes=0-0,-5", 200),
        ("bytes=-0", 416),
        ("bytes=0-", 416),
        ("bytes=0-0", 416),
    ] {
        let path = format!("/v2/a/blobs/{digest}");
        let call = client.call(Method::GET, &path).header("range", range);
        let answer = call.send().await.expect(status);
        assert!(
            status != 200 || answer.header("content-length") == "0",
            "{range}"
        );
    }
}

/// Guards: the error for a path that is almost right says what is wrong with it.
#[tokio::test(flavor = "multi_thread")]
async fn paths_say_what_is_wrong_with_them() {
    let registry = TestRegistry::start().await;
    for (path, status, said) in [
        ("//v2/", 404, "two slashes"),
        ("/v2//_catalog", 404, "two slashes"),
        ("/v2/a%2Fb/tags/list", 404, "%2F"),
        ("/v2/a%2fb/manifests/t", 404, "%2F"),
        ("/v2/a/tags/list/", 404, "ends in a slash"),
        ("/v2/_catalog/", 404, "ends in a slash"),
        ("/favicon.ico", 404, "begin with /v2/"),
    ] {
        let answer = registry.client().get(path).await.expect(status);
        let message = answer.json()["errors"][0]["message"].to_string();
        assert!(message.contains(said), "{path}: {message}");
    }
}
