//! Basics of the API: its support check, errors, request ids, the admin listener, restarts.

use http::Method;
use tonnage_server::{Locations, ServerOptions};
use tonnage_tests::client::{chunked, whole};
use tonnage_tests::registry::TestRegistry;

use crate::{content, push_image};

/// Guards: spec, "Determining Support" (end-1): 200 with and without the final slash, on GET and HEAD.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_supported() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for path in ["/v2/", "/v2"] {
        let answer = client.get(path).await.expect(200);
        assert_eq!(
            answer.header("docker-distribution-api-version"),
            "registry/2.0"
        );
        assert_eq!(&answer.body[..], b"{}");
        let answer = client.head(path).await.expect(200);
        assert_eq!(
            (answer.header("content-length"), answer.body.len()),
            ("2", 0)
        );
    }
}

/// Guards: spec, "Error Codes": every error has a JSON body of the specification's form, with the id of the request.
#[tokio::test(flavor = "multi_thread")]
async fn errors_are_json() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let nowhere = format!("sha256:{}", "0".repeat(64));
    for (method, path, status, code) in [
        (Method::GET, "/".to_owned(), 404, "UNSUPPORTED"),
        (
            Method::GET,
            "/v2/a/tags/list".to_owned(),
            404,
            "NAME_UNKNOWN",
        ),
        (
            Method::GET,
            "/v2/A/tags/list".to_owned(),
            400,
            "NAME_INVALID",
        ),
        (
            Method::GET,
            "/v2/a/manifests/latest".to_owned(),
            404,
            "NAME_UNKNOWN",
        ),
        (
            Method::GET,
            "/v2/a/manifests/.INVALID".to_owned(),
            404,
            "MANIFEST_UNKNOWN",
        ),
        (
            Method::PUT,
            "/v2/a/manifests/.INVALID".to_owned(),
            400,
            "MANIFEST_INVALID",
        ),
        (
            Method::GET,
            "/v2/a/manifests/sha256:bad".to_owned(),
            400,
            "DIGEST_INVALID",
        ),
        (
            Method::GET,
            format!("/v2/a/blobs/{nowhere}"),
            404,
            "BLOB_UNKNOWN",
        ),
        (
            Method::GET,
            "/v2/a/blobs/md5:00".to_owned(),
            400,
            "DIGEST_INVALID",
        ),
        (
            Method::GET,
            "/v2/a/blobs/uploads/7".to_owned(),
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
        (
            Method::POST,
            "/v2/a/blobs/uploads/?digest=bad".to_owned(),
            400,
            "DIGEST_INVALID",
        ),
        (
            Method::POST,
            "/v2/a/blobs/uploads/?digest-algorithm=md5".to_owned(),
            400,
            "DIGEST_INVALID",
        ),
        (
            Method::GET,
            "/v2/a/referrers/bad".to_owned(),
            400,
            "DIGEST_INVALID",
        ),
        (
            Method::GET,
            "/v2/_catalog?n=x".to_owned(),
            400,
            "UNSUPPORTED",
        ),
        (Method::PUT, "/v2/_catalog".to_owned(), 405, "UNSUPPORTED"),
        (
            Method::DELETE,
            format!("/v2/a/blobs/{nowhere}"),
            404,
            "BLOB_UNKNOWN",
        ),
        (
            Method::DELETE,
            "/v2/a/manifests/latest".to_owned(),
            404,
            "NAME_UNKNOWN",
        ),
    ] {
        let answer = client.call(method.clone(), &path).send().await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{method} {path}: {:?}",
            answer.body
        );
        answer.expect_error(status, code);
    }
    let answer = client.delete("/v2/").await.expect(405);
    assert_eq!(answer.header("allow"), "GET, HEAD");
}

/// Guards: one request id is in the header and the body of an answer; the client's own id is kept.
#[tokio::test(flavor = "multi_thread")]
async fn request_ids_come_back() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let call = client
        .call(Method::GET, "/v2/x/tags/list")
        .header("x-request-id", "build-7");
    let answer = call.send().await.expect_error(404, "NAME_UNKNOWN");
    assert_eq!(answer.header("x-request-id"), "build-7");
}

/// Guards: a body with a content encoding is rejected before it is read, because digests are of the bytes as sent.
#[tokio::test(flavor = "multi_thread")]
async fn content_encodings_are_refused() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for path in ["/v2/a/blobs/uploads/", "/v2/a/manifests/latest"] {
        let method = if path.ends_with('/') {
            Method::POST
        } else {
            Method::PUT
        };
        let call = client.call(method, path).header("content-encoding", "gzip");
        call.body(whole("x"))
            .send()
            .await
            .expect_error(415, "UNSUPPORTED");
    }
}

/// Guards: a client that sends the whole body of a rejected request can still read the error (bounded draining).
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_body_is_drained() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for _ in 0..5 {
        let pieces = (0..64).map(|n| content(n, 64 << 10).into()).collect();
        let call = client
            .call(Method::POST, "/v2/a/blobs/uploads/?digest=bad")
            .body(chunked(pieces));
        call.send().await.expect_error(400, "DIGEST_INVALID");
    }
}

/// Guards: metrics and health are served on their own listener, and no metric has the name of a repository as a label.
#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_serves_health_and_metrics() {
    let registry = TestRegistry::start().await;
    push_image(&registry.client(), "secret-name", "latest", b"layer").await;
    registry
        .client()
        .get("/v2/secret-name/manifests/latest")
        .await
        .expect(200);
    let empty = crate::push_blob(&registry.client(), "secret-name", b"").await;
    let path = format!("/v2/secret-name/blobs/{empty}");
    registry.client().get(&path).await.expect(200);
    let admin = registry.admin();
    assert_eq!(&admin.get("/healthz").await.expect(200).body[..], b"ok\n");
    assert_eq!(&admin.get("/readyz").await.expect(200).body[..], b"ready\n");
    let text = String::from_utf8(admin.get("/metrics").await.expect(200).body.to_vec()).unwrap();
    for line in [
        "registry_http_requests_total{route=\"/v2/{name}/manifests/{reference}\",method=\"PUT\",code=\"201\"} 1",
        "registry_push_total{result=\"ok\"} 1",
        "registry_pull_total{kind=\"manifest\",result=\"ok\"} 1",
        "registry_pull_total{kind=\"blob\",result=\"ok\"} 1",
        "registry_pull_total{kind=\"manifest\",result=\"client\"} 0",
        "registry_pull_total{kind=\"blob\",result=\"client\"} 0",
        "registry_pull_total{kind=\"blob\",result=\"error\"} 0",
        "registry_storage_read_only 0",
        "registry_io_failures_total{class=\"journal\",backend=\"threads\",attempted=\"yes\"} 0",
        "registry_io_failures_total{class=\"journal\",backend=\"threads\",attempted=\"no\"} 0",
        "registry_collected_blobs_total 0",
        "registry_collected_bytes_total 0",
        "registry_collected_segments_total 0",
        "registry_collection_last_success_timestamp_seconds ",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    for class in ["journal", "commit_data", "directory"] {
        let line =
            format!("registry_io_operations_total{{class=\"{class}\",backend=\"threads\"}} ");
        let counted = text.split_once(&line).expect(&line).1.lines().next();
        assert!(
            counted.is_some_and(|count| count != "0"),
            "{line}{counted:?}"
        );
    }
    assert!(!text.contains("secret-name"));
    assert!(!text.contains("push_total{result=\"client\""), "{text}");
    registry.client().get("/metrics").await.expect(404);
    admin.get("/v2/").await.expect(404);
}

/// Guards: pushed content is present after a restart, and active requests are not cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let registry = TestRegistry::start().await;
    let digest = push_image(&registry.client(), "a", "latest", &content(1, 100_000)).await;
    let registry = registry.restart().await;
    let answer = registry
        .client()
        .get("/v2/a/manifests/latest")
        .await
        .expect(200);
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    let layer = crate::sha256(&content(1, 100_000));
    let answer = registry
        .client()
        .get(&format!("/v2/a/blobs/{layer}"))
        .await
        .expect(200);
    assert_eq!(answer.body, content(1, 100_000));
}

/// Guards: headers in which a proxy reports its client, and which any client can send, change no answer.
#[tokio::test(flavor = "multi_thread")]
async fn forwarded_headers_are_ignored() {
    let registry = TestRegistry::with(ServerOptions {
        locations: Locations::Request,
        ..ServerOptions::default()
    });
    let registry = registry.await;
    let client = registry.client();
    let begin = client.call(Method::POST, "/v2/a/blobs/uploads/");
    let plain = begin.send().await.expect(202);
    let mut begin = client.call(Method::POST, "/v2/a/blobs/uploads/");
    for (name, value) in [
        ("forwarded", "for=10.0.0.1;host=evil.example;proto=https"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-prefix", "/evil"),
        ("x-forwarded-user", "admin"),
        ("x-original-url", "/v2/_catalog"),
        ("x-rewrite-url", "/v2/_catalog"),
        ("x-http-method-override", "GET"),
    ] {
        begin = begin.header(name, value);
    }
    let forwarded = begin.send().await.expect(202);
    let base = format!("http://{}/v2/a/blobs/uploads/", client.address());
    for answer in [plain, forwarded] {
        let location = answer.header("location");
        assert!(location.starts_with(&base), "{location}");
    }
}
