//! Pulling blobs: headers, visibility, conditions.

use http::Method;
use tonnage_tests::registry::TestRegistry;

use crate::{content, push_blob, sha256};

/// Guards: spec, "Pulling blobs" and "Checking if content exists": GET and HEAD send the digest, the true length and
/// the other headers that clients need.
#[tokio::test(flavor = "multi_thread")]
async fn headers_of_a_blob() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for length in [0, 5, 70_000] {
        let blob = content(1, length);
        let digest = push_blob(&client, "a", &blob).await;
        let path = format!("/v2/a/blobs/{digest}");
        for method in [Method::GET, Method::HEAD] {
            let call = client
                .call(method.clone(), &path)
                .header("accept-encoding", "zstd, gzip");
            let answer = call.header(
                "range",
                if method == Method::HEAD {
                    "bytes=0-0"
                } else {
                    ""
                },
            );
            let answer = answer.send().await.expect(200);
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
            assert_eq!(answer.header("content-length"), length.to_string());
            assert_eq!(answer.header("content-type"), "application/octet-stream");
            assert_eq!(answer.header("accept-ranges"), "bytes");
            assert_eq!(answer.header("etag"), format!("\"{digest}\""));
            assert!(answer.header("cache-control").contains("immutable"));
            assert!(answer.lacks("content-encoding"));
            let expected: &[u8] = if method == Method::HEAD { b"" } else { &blob };
            assert_eq!(answer.body, expected);
        }
        let answer = client.get(&path.replace(':', "%3A")).await.expect(200);
        assert_eq!(answer.body, blob);
    }
}

/// Guards: a blob is visible only in the repositories that link it, whatever else the store has.
#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_seen_where_they_are_linked() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"content").await;
    push_blob(&client, "b", b"other").await;
    for name in ["b", "nowhere"] {
        let path = format!("/v2/{name}/blobs/{digest}");
        client.get(&path).await.expect_error(404, "BLOB_UNKNOWN");
        let answer = client.head(&path).await.expect(404);
        assert!(answer.body.is_empty());
    }
}

/// Guards: RFC 9110 section 13.1.2: 304 if the client already has the content.
#[tokio::test(flavor = "multi_thread")]
async fn content_that_the_client_has_is_not_sent() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"content").await;
    let path = format!("/v2/a/blobs/{digest}");
    for method in [Method::GET, Method::HEAD] {
        let call = client
            .call(method, &path)
            .header("if-none-match", format!("\"{digest}\""));
        let answer = call.send().await.expect(304);
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert!(answer.body.is_empty());
    }
    let other = sha256(b"other");
    let call = client
        .call(Method::GET, &path)
        .header("if-none-match", format!("\"{other}\""));
    call.send().await.expect(200);
}
