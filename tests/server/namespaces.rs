//! Registry namespaces (`ns=`) and advertised chunk sizes.

use http::Method;
use tonnage_server::ServerOptions;
use tonnage_tests::registry::TestRegistry;

use crate::{begin, push_blob, push_image};

/// Guards: spec, "Registry Proxying": without configuration `ns` changes nothing, and no `OCI-Namespace` claims that it
/// was used.
#[tokio::test(flavor = "multi_thread")]
async fn ns_is_no_error_and_claims_nothing() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    push_image(&client, "library/alpine", "latest", b"layer").await;
    for query in ["ns=docker.io", "ns=", "ns=%0d%0a", "ns=a&ns=b"] {
        let path = format!("/v2/library/alpine/manifests/latest?{query}");
        let answer = client.get(&path).await.expect(200);
        assert!(answer.lacks("oci-namespace"));
    }
}

/// Guards: spec, "Registry Proxying": a registry that scopes by `ns` returns its value in `OCI-Namespace`. It serves
/// nothing for a registry that it does not mirror. Pushes, lists and pulls without `ns` are unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_what_it_mirrors() {
    let options = ServerOptions {
        mirror_of: vec!["docker.io".to_owned(), "registry.example:5000".to_owned()],
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let client = registry.client();
    let manifest = push_image(&client, "library/alpine", "latest", b"layer").await;
    let blob = push_blob(&client, "library/alpine", b"layer").await;
    for path in [
        "/v2/library/alpine/manifests/latest".to_owned(),
        format!("/v2/library/alpine/manifests/{manifest}"),
        format!("/v2/library/alpine/blobs/{blob}"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let ask = |query: &str| {
                client
                    .call(method.clone(), &format!("{path}{query}"))
                    .send()
            };
            for host in ["docker.io", "Docker.IO", "registry.example:5000"] {
                let answer = ask(&format!("?ns={host}")).await.expect(200);
                assert_eq!(answer.header("oci-namespace"), host);
            }
            assert!(ask("").await.expect(200).lacks("oci-namespace"));
            for host in ["quay.io", "docker.io.example", ""] {
                let answer = ask(&format!("?ns={host}")).await.expect(404);
                assert!(answer.lacks("oci-namespace"));
            }
        }
    }
    let path = "/v2/library/nothing/manifests/latest?ns=docker.io";
    let answer = client.get(path).await.expect_error(404, "NAME_UNKNOWN");
    assert_eq!(answer.header("oci-namespace"), "docker.io");
    let path = "/v2/library/alpine/manifests/latest?ns=quay.io";
    client.get(path).await.expect_error(404, "NAME_UNKNOWN");
    client
        .get("/v2/library/alpine/tags/list?ns=quay.io")
        .await
        .expect(200);
    let path = format!("/v2/library/alpine/referrers/{manifest}?ns=quay.io");
    client.get(&path).await.expect(200);
    client
        .post("/v2/a/blobs/uploads/?ns=quay.io")
        .await
        .expect(202);
}

/// Guards: spec, "Pushing a blob in chunks": the minimum chunk length is sent where an upload begins and only there.
/// Shorter chunks are accepted: the rule for clients is a SHOULD, and the server cannot know which chunk is the last.
#[tokio::test(flavor = "multi_thread")]
async fn short_chunks_are_discouraged_and_accepted() {
    let options = ServerOptions {
        chunk_min_bytes: 1 << 20,
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let client = registry.client();
    let answer = client.post("/v2/a/blobs/uploads/").await.expect(202);
    assert_eq!(answer.header("oci-chunk-min-length"), "1048576");
    let location = answer.header("location").to_owned();
    for (range, text) in [("0-2", "abc"), ("3-5", "def")] {
        let call = client
            .call(Method::PATCH, &location)
            .header("content-range", range);
        let answer = call
            .body(tonnage_tests::client::whole(text))
            .send()
            .await
            .expect(202);
        assert!(answer.lacks("oci-chunk-min-length"));
    }
    let digest = crate::sha256(b"abcdef");
    client
        .put(&format!("{location}?digest={digest}"), "")
        .await
        .expect(201);

    let plain = TestRegistry::start().await;
    begin(&plain.client(), "a").await;
    let answer = plain
        .client()
        .post("/v2/a/blobs/uploads/")
        .await
        .expect(202);
    assert!(answer.lacks("oci-chunk-min-length"));
}
