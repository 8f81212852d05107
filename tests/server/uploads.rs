//! Pushes of blobs: in one request, in two, as a stream, in chunks; and rejected ones.

use http::Method;
use tokio::io::AsyncWriteExt as _;
use tonnage_engine::{Algorithm, Digest};
use tonnage_server::ServerOptions;
use tonnage_tests::client::{Answer, Client, chunked, whole};
use tonnage_tests::registry::TestRegistry;

use crate::takeover::{answer_to, half_open};
use crate::{begin, content, push_blob, sha256};

/// Guards: spec, "Single POST" (end-4b): 201 with a Location that can be pulled.
#[tokio::test(flavor = "multi_thread")]
async fn one_post() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for length in [0, 1, 2, 100_000] {
        let blob = content(1, length);
        let digest = sha256(&blob);
        for body in [whole(blob.clone()), chunked(vec![blob.clone().into()])] {
            let path = format!("/v2/a/blobs/uploads/?digest={digest}");
            let answer = client
                .call(Method::POST, &path)
                .body(body)
                .send()
                .await
                .expect(201);
            assert_eq!(answer.header("location"), format!("/v2/a/blobs/{digest}"));
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
            assert_eq!(
                client.get(answer.header("location")).await.expect(200).body,
                blob
            );
        }
    }
}

/// Guards: spec, "POST then PUT" (end-4a, end-6), as containerd, oras and helm push.
#[tokio::test(flavor = "multi_thread")]
async fn post_then_put() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let answer = client.post("/v2/a/blobs/uploads/").await.expect(202);
    assert_eq!(answer.header("range"), "0-0");
    assert_eq!(answer.header("content-length"), "0");
    let location = answer.header("location");
    assert!(
        location.starts_with("/v2/a/blobs/uploads/"),
        "not a path under the repository: {location}"
    );
    assert!(location.ends_with(answer.header("docker-upload-uuid")));
    let blob = content(2, 300_000);
    let digest = sha256(&blob);
    let answer = client
        .put(&format!("{location}?digest={digest}"), blob.clone())
        .await
        .expect(201);
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert_eq!(
        client.get(answer.header("location")).await.expect(200).body,
        blob
    );
    client
        .get(location)
        .await
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

/// Guards: pushes of docker, podman and crane: one PATCH of everything without Content-Range, then an empty PUT.
#[tokio::test(flavor = "multi_thread")]
async fn stream_then_empty_put() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let location = begin(&client, "a").await;
    let blob = content(3, 3_000_000);
    let pieces = blob
        .chunks(70_000)
        .map(|piece| piece.to_vec().into())
        .collect();
    let answer = client
        .call(Method::PATCH, &location)
        .body(chunked(pieces))
        .send()
        .await
        .expect(202);
    assert_eq!(answer.header("range"), "0-2999999");
    let location = answer.header("location").to_owned();
    let answer = client
        .put(&format!("{location}?digest={}", sha256(&blob)), "")
        .await
        .expect(201);
    assert_eq!(
        client.get(answer.header("location")).await.expect(200).body,
        blob
    );
}

/// Guards: spec, "Pushing a blob in chunks" (end-5, end-13): a chunk out of order is 416 with the upload's location, by
/// PATCH and by PUT. The session is unchanged and continues.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_in_and_out_of_order() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(4, 3000);
    let digest = sha256(&blob);
    let location = begin(&client, "a").await;
    let chunk = |method: Method, path: &str, from: usize, to: usize| {
        let call = client
            .call(method, path)
            .header("content-range", format!("{from}-{}", to - 1));
        call.body(whole(blob[from..to].to_vec())).send()
    };
    let refused = |answer: tonnage_tests::client::Answer, range: &str| {
        let answer = answer.expect_error(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(
            (answer.header("range"), answer.header("location")),
            (range, location.as_str())
        );
    };
    refused(chunk(Method::PATCH, &location, 1000, 2000).await, "0-0");
    assert_eq!(
        client.get(&location).await.expect(204).header("range"),
        "0-0"
    );
    let answer = chunk(Method::PATCH, &location, 0, 1000).await.expect(202);
    assert_eq!(answer.header("range"), "0-999");
    refused(chunk(Method::PATCH, &location, 0, 1000).await, "0-999");
    refused(chunk(Method::PATCH, &location, 2000, 3000).await, "0-999");
    let close = format!("{location}?digest={digest}");
    refused(chunk(Method::PUT, &close, 2000, 3000).await, "0-999");
    let answer = client.get(&location).await.expect(204);
    assert_eq!(
        (answer.header("range"), answer.header("location")),
        ("0-999", location.as_str())
    );
    chunk(Method::PATCH, &location, 1000, 2000)
        .await
        .expect(202);
    chunk(Method::PUT, &close, 2000, 3000).await.expect(201);
    assert_eq!(
        client
            .get(&format!("/v2/a/blobs/{digest}"))
            .await
            .expect(200)
            .body,
        blob
    );
}

/// Guards: a body whose length differs from its Content-Range changes nothing, also when it is sent without a length.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_the_wrong_length() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let location = begin(&client, "a").await;
    client.patch(&location, "abc").await.expect(202);
    for (range, code) in [
        ("3-9", "SIZE_INVALID"),
        ("9-3", "BLOB_UPLOAD_INVALID"),
        ("x", "BLOB_UPLOAD_INVALID"),
    ] {
        for length in [3, 8] {
            let bodies = [
                whole(content(0, length)),
                chunked(vec![content(0, length).into()]),
            ];
            for body in bodies {
                let call = client
                    .call(Method::PATCH, &location)
                    .header("content-range", range);
                call.body(body).send().await.expect_error(400, code);
                assert_eq!(
                    client.get(&location).await.expect(204).header("range"),
                    "0-2"
                );
            }
        }
    }
    client
        .put(&format!("{location}?digest={}", sha256(b"abc")), "")
        .await
        .expect(201);
}

/// Guards: an upload closed with the wrong digest is rolled back to the state before that request's body, and stays
/// open.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_digests_change_nothing() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let location = begin(&client, "a").await;
    client.patch(&location, "hello ").await.expect(202);
    let wrong = sha256(b"something else");
    for body in ["", "world!"] {
        let answer = client
            .put(&format!("{location}?digest={wrong}"), body)
            .await;
        let answer = answer.expect_error(400, "DIGEST_INVALID");
        assert_eq!(
            answer.json()["errors"][0]["detail"]["expected"],
            wrong.to_string()
        );
        assert_eq!(
            client.get(&location).await.expect(204).header("range"),
            "0-5"
        );
    }
    for query in [
        "",
        "?digest=",
        "?digest=sha256:bad",
        "?digest=md5:d41d8cd98f00b204e9800998ecf8427e",
    ] {
        client
            .put(&format!("{location}{query}"), "x")
            .await
            .expect_error(400, "DIGEST_INVALID");
    }
    client
        .put(
            &format!("{location}?digest={}", sha256(b"hello world")),
            "world",
        )
        .await
        .expect(201);
    let path = format!("/v2/a/blobs/uploads/?digest={wrong}");
    let call = client.call(Method::POST, &path).body(whole("x"));
    call.send().await.expect_error(400, "DIGEST_INVALID");
    client
        .head(&format!("/v2/a/blobs/{wrong}"))
        .await
        .expect(404);
}

/// Guards: spec, "Cancel" (end-14): a cancelled upload is 204, then 404. Another repository cannot see the session.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_and_foreign_uploads() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let location = begin(&client, "a").await;
    let foreign = location.replace("/v2/a/", "/v2/b/");
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        client
            .call(method, &foreign)
            .send()
            .await
            .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    client.patch(&location, "abc").await.expect(202);
    client.delete(&location).await.expect(204);
    client
        .delete(&location)
        .await
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    client
        .get(&location)
        .await
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    client
        .patch(&location, "abc")
        .await
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

/// Guards: every registered algorithm works, announced by `digest-algorithm`, by the `?digest=` of the request with the
/// body, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn all_algorithms_announced_or_not() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for algorithm in Algorithm::ALL {
        for announced in ["", &format!("?digest-algorithm={}", algorithm.name())] {
            let blob = content(algorithm.code(), 200_000 + announced.len());
            let digest = Digest::of(algorithm, &blob);
            let answer = client
                .post(&format!("/v2/a/blobs/uploads/{announced}"))
                .await
                .expect(202);
            let location = answer.header("location").to_owned();
            client
                .patch(&location, blob[..100_000].to_vec())
                .await
                .expect(202);
            let close = format!("{location}?digest={digest}");
            client
                .put(&close, blob[100_000..].to_vec())
                .await
                .expect(201);
            let answer = client
                .get(&format!("/v2/a/blobs/{digest}"))
                .await
                .expect(200);
            assert_eq!(answer.body, blob);
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        }
    }
}

/// Guards: a blob too large to be staged in memory, which the engine writes to a dedicated segment, is returned
/// unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(9, 20 << 20);
    let digest = push_blob(&client, "a", &blob).await;
    let answer = client
        .get(&format!("/v2/a/blobs/{digest}"))
        .await
        .expect(200);
    assert_eq!(answer.header("content-length"), (20 << 20).to_string());
    assert!(answer.body == blob, "20 MiB differ");
}

/// Guards: a connection that breaks inside a body keeps the bytes that arrived. The status gives the offset, and the
/// upload continues.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_keeps_the_prefix() {
    use tokio::io::AsyncWriteExt as _;
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let location = begin(&client, "a").await;
    let blob = content(5, 100_000);
    let mut stream = tokio::net::TcpStream::connect(client.address())
        .await
        .unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&blob[..60_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest)
        .await
        .unwrap_or_default();
    // The server may still be receiving the first part; then the next byte is accepted.
    let kept = loop {
        let answer = client.get(&location).await.expect(204);
        let range = answer.header("range").to_owned();
        let kept: usize = range.trim_start_matches("0-").parse::<usize>().unwrap() + 1;
        let probe = client
            .call(Method::PATCH, &location)
            .header("content-range", format!("{kept}-99999"));
        let answer = probe.body(whole(blob[kept..].to_vec())).send().await;
        if answer.status == 202 {
            break kept;
        }
        answer.expect(416);
    };
    assert!(kept > 1, "nothing was kept");
    let close = format!("{location}?digest={}", sha256(&blob));
    client.put(&close, "").await.expect(201);
}

/// Guards: the algorithm of `?digest=` is used from the first byte, whatever was announced before. A chunk may name it
/// too.
#[tokio::test(flavor = "multi_thread")]
async fn the_digest_sent_with_the_bytes_decides_the_algorithm() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(3, 200_000);
    for announced in Algorithm::ALL {
        for named in Algorithm::ALL {
            let path = format!("/v2/a/blobs/uploads/?digest-algorithm={}", announced.name());
            let begun = client.post(&path).await.expect(202);
            let location = begun.header("location").to_owned();
            let id = begun.header("docker-upload-uuid").parse().unwrap();
            let runs = |expected: Algorithm| {
                let status = registry.store.upload_status(id, "a").unwrap();
                assert_eq!(status.algorithm, expected, "{announced:?} {named:?}");
            };
            runs(announced);
            let digest = Digest::of(named, &blob);
            let chunk = format!("{location}?digest={digest}");
            client
                .patch(&chunk, blob[..70_000].to_vec())
                .await
                .expect(202);
            runs(named);
            let other = Digest::of(announced, b"");
            let chunk = format!("{location}?digest={other}");
            client
                .patch(&chunk, blob[70_000..].to_vec())
                .await
                .expect(202);
            runs(named);
            let digest = Digest::of(announced, &blob);
            client
                .put(&format!("{location}?digest={digest}"), "")
                .await
                .expect(201);
        }
    }
}

async fn begin_in(client: &Client, repository: &str) -> Answer {
    let path = format!("/v2/{repository}/blobs/uploads/");
    client.post(&path).await
}

/// Guards: abandoned uploads of one repository do not use up the places of others: they are evicted, the oldest empty
/// one first. Within their own repository they are not evicted at once, and an upload in use never is.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_uploads_are_evicted() {
    let store = tonnage_engine::Options {
        uploads_max: 4,
        ..tonnage_engine::Options::default()
    };
    let registry = TestRegistry::with_store(ServerOptions::default(), store).await;
    let client = registry.client();
    let location = begin(&client, "left").await;
    let mut held = half_open(&client, &format!("PATCH {location}"), &location, b"abc").await;
    let mut left = Vec::new();
    for _ in 0..3 {
        left.push(begin(&client, "left").await);
    }
    client.patch(&left[0], "partial").await.expect(202);
    let refused = begin_in(&client, "left").await;
    refused.expect_error(429, "TOOMANYREQUESTS");
    push_blob(&client, "mine", b"one request").await;
    let other = begin(&client, "mine").await;
    // Whether the third was evicted too depends on when the finished upload freed its place.
    for (location, status) in left.iter().zip([204, 404]) {
        assert_eq!(client.get(location).await.status, status, "{location}");
    }
    let unknown = client.patch(&left[1], "late").await;
    unknown.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    client.patch(&other, "here").await.expect(202);
    let rest = vec![0; 200_000 - 3];
    held.write_all(&rest).await.unwrap();
    let said = answer_to(held).await;
    assert!(said.starts_with("HTTP/1.1 202"), "{said}");
}
