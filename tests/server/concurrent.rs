//! Concurrent requests for the same blob, tag or upload.

use http::Method;
use tonnage_tests::client::whole;
use tonnage_tests::registry::TestRegistry;

use crate::{MANIFEST, begin, content, push_blob, push_layers, sha256};

/// Guards: if the same blob is pushed many times at once, every push gets 201 and the blob is whole.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_blob_at_once() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let pushes = (0..16).map(|n| {
        let name = format!("r{}", n % 4);
        tokio::spawn(async move { push_blob(&client, &name, &content(7, 500_000)).await })
    });
    for push in pushes.collect::<Vec<_>>() {
        push.await.unwrap();
    }
    for n in 0..4 {
        let path = format!("/v2/r{n}/blobs/{}", sha256(&content(7, 500_000)));
        assert_eq!(
            client.get(&path).await.expect(200).body,
            content(7, 500_000)
        );
    }
}

/// Guards: of many requests that create one tag with `If-None-Match: *`, exactly one succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn one_winner_of_a_tag() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut texts = Vec::new();
    for n in 0..12_u8 {
        texts.push(push_layers(&client, "a", &[&[n]]).await.to_string());
    }
    let puts = texts.iter().cloned().map(|text| {
        let call = client
            .call(Method::PUT, "/v2/a/manifests/t")
            .header("content-type", MANIFEST);
        let call = call.header("if-none-match", "*").body(whole(text.clone()));
        tokio::spawn(async move { (call.send().await.status.as_u16(), text) })
    });
    let mut winners = Vec::new();
    for put in puts.collect::<Vec<_>>() {
        match put.await.unwrap() {
            (201, text) => winners.push(text),
            (status, _) => assert_eq!(status, 412),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(
        client.get("/v2/a/manifests/t").await.expect(200).body,
        winners[0]
    );
}

/// Guards: of two writers to one upload, one gets 416 with the upload's location, and their bytes are not mixed.
#[tokio::test(flavor = "multi_thread")]
async fn one_writer_of_an_upload() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let location = begin(&client, "a").await;
    let mut stream = tokio::net::TcpStream::connect(client.address())
        .await
        .unwrap();
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body once the request has the upload's turn.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 Continue"));
    let answer = client
        .patch(&location, "other")
        .await
        .expect_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(answer.header("location"), location);
    // The answer names no range: the offset is changing, and a range of zero bytes cannot be written. regctl would
    // start over again and again.
    assert!(!answer.headers.contains_key("range"));
    stream.write_all(b"0123456789").await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(
        rest.starts_with(b"HTTP/1.1 202"),
        "{:?}",
        String::from_utf8_lossy(&rest)
    );
    let close = format!("{location}?digest={}", sha256(b"0123456789"));
    client.put(&close, "").await.expect(201);
}
