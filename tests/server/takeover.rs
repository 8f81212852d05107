//! Requests that take an upload's turn from an older request, and closes that are sent again.

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonnage_tests::client::{Answer, Client, whole};
use tonnage_tests::registry::TestRegistry;

use crate::{begin, content, sha256};

/// Begins a request whose client sends `sent` of a body of 200,000 bytes and then nothing more.
async fn begun(client: &Client, request: &str, sent: &[u8]) -> TcpStream {
    let mut stream = opened(client, request, 200_000).await;
    stream.write_all(sent).await.unwrap();
    stream
}

/// Begins a request that has the upload's turn and sent none of its body of `length` bytes.
async fn opened(client: &Client, request: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(client.address()).await.unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body once the request has the upload's turn.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 Continue"));
    stream
}

/// Begins a request in the same way, and waits until the server has received all of `sent`.
pub(crate) async fn half_open(
    client: &Client,
    request: &str,
    location: &str,
    sent: &[u8],
) -> TcpStream {
    let stream = begun(client, request, sent).await;
    let range = format!("0-{}", sent.len().saturating_sub(1));
    while client.get(location).await.expect(204).header("range") != range {}
    stream
}

pub(crate) async fn answer_to(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap_or_default();
    String::from_utf8_lossy(&said).into_owned()
}

async fn send(client: &Client, method: Method, path: &str, from: usize, bytes: &[u8]) -> Answer {
    let range = format!("{from}-{}", from + bytes.len() - 1);
    let call = client.call(method, path).header("content-range", range);
    call.body(whole(bytes.to_vec())).send().await
}

/// Guards: a client that reconnects and continues at the upload's offset does not wait until its old connection times
/// out. The old request gets 416, writes no more bytes, and the blob is whole. The same holds if the old request sent
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_order_takes_over() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let mut seed = 0;
    for old in ["PATCH", "PUT"] {
        for (kept, close, chunked) in [
            (0, false, true),
            (60_000, false, true),
            (60_000, true, true),
            (60_000, true, false),
        ] {
            seed += 1;
            let blob = content(seed, 200_000);
            let digest = sha256(&blob);
            let location = begin(&client, "a").await;
            let closing = format!("{location}?digest={digest}");
            let path = if old == "PUT" { &closing } else { &location };
            let request = format!("{old} {path}");
            let stream = half_open(&client, &request, &location, &blob[..kept]).await;
            match (close, chunked) {
                (false, _) => {
                    let rest = send(&client, Method::PATCH, &location, kept, &blob[kept..]).await;
                    assert_eq!(rest.expect(202).header("range"), "0-199999");
                    client.put(&closing, "").await.expect(201);
                }
                (true, true) => {
                    let rest = send(&client, Method::PUT, &closing, kept, &blob[kept..]).await;
                    rest.expect(201);
                }
                (true, false) => {
                    let rest = client.put(&closing, blob[kept..].to_vec()).await;
                    rest.expect(201);
                }
            }
            let said = answer_to(stream).await;
            assert!(said.starts_with("HTTP/1.1 4"), "{old} {kept}: {said}");
            let pulled = client
                .get(&format!("/v2/a/blobs/{digest}"))
                .await
                .expect(200);
            assert!(pulled.body == blob, "{old} {kept}: other bytes");
        }
    }
}

/// Guards: a request that is not in order, or whose length contradicts its range, takes no turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_out_of_order_takes_nothing_over() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(1, 200_000);
    let location = begin(&client, "a").await;
    let request = format!("PATCH {location}");
    let mut stream = half_open(&client, &request, &location, &blob[..100]).await;
    for from in [0, 99, 101] {
        let refused = send(&client, Method::PATCH, &location, from, &blob[..10]).await;
        let refused = refused.expect_error(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(refused.header("range"), "0-99");
    }
    let call = client.call(Method::PATCH, &location);
    let call = call.header("content-range", "100-300").body(whole("short"));
    call.send().await.expect_error(400, "SIZE_INVALID");
    stream.write_all(&blob[100..]).await.unwrap();
    let said = answer_to(stream).await;
    assert!(said.starts_with("HTTP/1.1 202"), "{said}");
    let closing = format!("{location}?digest={}", sha256(&blob));
    client.put(&closing, "").await.expect(201);
}

/// Guards: a client whose 201 was lost closes again, with the bytes of the last chunk or without, and gets 201 again,
/// as long as the repository has that blob. Other clients do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_sent_again_has_the_same_answer() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(1, 100_000);
    let digest = sha256(&blob);
    let location = begin(&client, "a").await;
    let close = format!("{location}?digest={digest}");
    let first = client.put(&close, blob.clone()).await.expect(201);
    for body in [blob.clone(), Vec::new()] {
        let again = client.put(&close, body).await.expect(201);
        for name in ["location", "docker-content-digest"] {
            assert_eq!(again.header(name), first.header(name));
        }
    }
    send(&client, Method::PUT, &close, 50_000, &blob[50_000..])
        .await
        .expect(201);
    let unknown = |answer: Answer| drop(answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN"));
    unknown(client.get(&location).await);
    unknown(client.patch(&location, "more").await);
    unknown(client.delete(&location).await);
    let other = sha256(b"other");
    unknown(client.put(&format!("{location}?digest={other}"), "").await);
    unknown(client.put(&close.replace("/v2/a/", "/v2/b/"), "").await);
    let path = format!("/v2/a/blobs/{digest}");
    client.delete(&path).await.expect(202);
    unknown(client.put(&close, "").await);
}

/// Guards: of many requests that close one upload at once, each gets 201: the later ones wait for the first one's
/// commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn closes_at_once_are_all_answered() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for size in [1000, 9 << 20] {
        let blob = content(2, size);
        let location = begin(&client, "a").await;
        let close = format!("{location}?digest={}", sha256(&blob));
        client.patch(&location, blob).await.expect(202);
        let closes = (0..16).map(|_| {
            let close = close.clone();
            tokio::spawn(async move { client.put(&close, "").await.status.as_u16() })
        });
        for closed in closes.collect::<Vec<_>>() {
            assert_eq!(closed.await.unwrap(), 201, "{size} bytes");
        }
    }
}

/// Guards: the bytes of an interrupted close without a range do not count when it is sent again as a whole. A client
/// that asks for the offset instead, by a status request or a chunk out of order, continues there.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_broke_off_is_sent_again() {
    const SENT: usize = 60_000;
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for (seed, asked) in [(1, ""), (2, "status"), (3, "chunk"), (4, "stalled")] {
        let blob = content(seed, 200_000);
        let location = begin(&client, "a").await;
        let closing = format!("{location}?digest={}", sha256(&blob));
        let mut broken = begun(&client, &format!("PUT {closing}"), &blob[..SENT]).await;
        let mut stalled = None;
        if asked == "stalled" {
            stalled = Some(broken);
        } else {
            broken.shutdown().await.unwrap();
            // The interrupted request is over.
            answer_to(broken).await;
        }
        let from = match asked {
            "status" => {
                client.get(&location).await.expect(204);
                SENT
            }
            "chunk" => {
                let early = send(&client, Method::PATCH, &location, SENT + 1, b"x").await;
                early.expect_error(416, "BLOB_UPLOAD_INVALID");
                SENT
            }
            _ => 0,
        };
        let rest = blob[from..].to_vec();
        client.put(&closing, rest).await.expect(201);
        drop(stalled);
    }
    let blob = content(5, 200_000);
    let location = begin(&client, "a").await;
    let closing = format!("{location}?digest={}", sha256(&blob));
    let broken = half_open(&client, &format!("PUT {closing}"), &location, &blob[..SENT]).await;
    drop(broken);
    let rest = send(&client, Method::PUT, &closing, SENT, &blob[SENT..]).await;
    rest.expect(201);
}

/// Guards: if equal closes without a range take the turn from each other, the newest makes the blob. The answers to the
/// older ones come first, name no offset and change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_equal_closes_makes_the_blob() {
    // More than the socket buffers of a connection hold, so that the server has received some of it.
    const SENT: usize = 16 << 20;
    let registry = TestRegistry::start().await;
    let client = registry.client();
    for (seed, kept) in [(6, 0), (7, 50_000)] {
        let blob = content(seed, kept + SENT + 1000);
        let location = begin(&client, "a").await;
        if kept > 0 {
            client
                .patch(&location, blob[..kept].to_vec())
                .await
                .expect(202);
        }
        let closing = format!("{location}?digest={}", sha256(&blob));
        let (request, rest) = (format!("PUT {closing}"), &blob[kept..]);
        let mut newest = opened(&client, &request, rest.len()).await;
        newest.write_all(&rest[..SENT]).await.unwrap();
        for _ in 0..2 {
            let mut newer = opened(&client, &request, rest.len()).await;
            let said = answer_to(newest).await.to_lowercase();
            assert!(said.starts_with("http/1.1 416"), "{kept}: {said}");
            assert!(said.contains("\r\nlocation: "), "{kept}: {said}");
            assert!(!said.contains("\r\nrange: "), "{kept}: {said}");
            newer.write_all(&rest[..SENT]).await.unwrap();
            newest = newer;
        }
        newest.write_all(&rest[SENT..]).await.unwrap();
        let said = answer_to(newest).await;
        assert!(said.starts_with("HTTP/1.1 201"), "{kept}: {said}");
        client.put(&closing, rest.to_vec()).await.expect(201);
        let path = format!("/v2/a/blobs/{}", sha256(&blob));
        assert!(client.get(&path).await.expect(200).body == blob, "{kept}");
    }
}
