//! Limits on slow clients: heads, manifests and idle connections.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonnage_server::ServerOptions;
use tonnage_tests::client::{Call, Client, whole};
use tonnage_tests::registry::TestRegistry;

use crate::{MANIFEST, push_blob, push_layers, wire};

/// The time after which a wait counts as failed: far beyond every timeout under test.
const HANG: Duration = Duration::from_secs(60);
/// The pause between two bytes of a slow client.
const PACE: Duration = Duration::from_millis(2);
/// The timeout under test. It is longer than [`PACE`], so that progress alone cannot keep the connection.
const SOON: Duration = Duration::from_millis(100);

/// Sends `opening`, then the bytes of `more` one at a time, over and over, until the server ends the connection.
/// Returns what the server sent.
async fn send_slowly(registry: &TestRegistry, opening: &[u8], more: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(registry.client().address())
        .await
        .unwrap();
    stream.write_all(opening).await.unwrap();
    let (mut from, mut to) = stream.split();
    let mut said = Vec::new();
    let sending = async {
        for byte in more.iter().cycle() {
            if to.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(PACE).await;
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::time::timeout(HANG, async {
        tokio::select! {
            // A reset is an end too.
            end = from.read_to_end(&mut said) => drop(end),
            () = sending => {}
        }
    });
    assert!(
        ended.await.is_ok(),
        "the server kept the connection of a slow client"
    );
    said
}

/// Guards: the timeout of a head covers the whole head (slow loris). A client that sends headers byte by byte gets 408,
/// and its connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_ends() {
    let options = ServerOptions {
        header_timeout: SOON,
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let opening = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n";
    let said = send_slowly(&registry, opening, b"X-A: b\r\n").await;
    let text = String::from_utf8_lossy(&said);
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    registry.client().get("/v2/").await.expect(200);
}

/// Guards: a manifest has a timeout for its whole body, because it is kept in memory and uses a budget meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_manifest_ends() {
    let options = ServerOptions {
        manifest_timeout: SOON,
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let head = |path: &str| {
        format!(
            "PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {MANIFEST}\r\nContent-Length: 1000000\r\n\r\n"
        )
    };
    let opening = head("/v2/a/manifests/t");
    let said = send_slowly(&registry, opening.as_bytes(), b" ").await;
    let text = String::from_utf8_lossy(&said);
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert!(text.contains("connection: close"), "{text}");
    assert!(!text.contains("offset"), "there is no upload: {text}");
}

/// Guards: a manifest whose body ends early is reported as an invalid manifest (spec, "Error Codes").
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_manifest_is_reported_as_invalid() {
    let registry = TestRegistry::start().await;
    let address = registry.client().address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "PUT /v2/a/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Type: {MANIFEST}\r\nContent-Length: 9\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let said = wire::rest(stream).await;
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    assert!(said.contains("MANIFEST_INVALID"), "{said}");
}

/// The length that a client announces for the largest manifest allowed.
const LARGEST: usize = 4 << 20;

/// Starts a registry with memory for one and a half of the largest manifests beside a reserve of 2 MiB.
async fn short_of_memory(stall: Duration) -> TestRegistry {
    let options = ServerOptions {
        manifest_budget_bytes: 8 << 20,
        manifest_stall: stall,
        manifest_timeout: HANG,
        ..ServerOptions::default()
    };
    TestRegistry::with(options).await
}

/// Announces the largest manifest, waits for 100 Continue, and sends the first `sent` bytes.
async fn announce(registry: &TestRegistry, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(registry.client().address())
        .await
        .unwrap();
    let head = format!(
        "PUT /v2/a/manifests/slow HTTP/1.1\r\nHost: x\r\nContent-Type: {MANIFEST}\r\nContent-Length: {LARGEST}\r\n\
         Expect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    let announcing = async {
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 25]).await.unwrap();
        stream.write_all(&vec![b' '; sent]).await.unwrap();
    };
    let announced = tokio::time::timeout(HANG, announcing).await;
    announced.expect("no 100 Continue for an announced manifest");
    stream
}

/// Pushes an image's manifest, padded to `bytes`.
fn put(client: &Client, tag: &str, text: &str, bytes: usize) -> Call {
    let path = format!("/v2/a/manifests/{tag}");
    let call = client.call(Method::PUT, &path);
    call.header("content-type", MANIFEST)
        .body(whole(text.to_owned() + &" ".repeat(bytes - text.len())))
}

/// Guards: a manifest uses memory only as it arrives. However many are announced and not sent, manifests of any size
/// can be pushed. One that stops after it has received much memory is rejected while others wait.
#[tokio::test(flavor = "multi_thread")]
async fn announced_manifests_take_no_memory() {
    let registry = short_of_memory(SOON).await;
    let client = registry.client();
    let text = push_layers(&client, "a", &[b"one"]).await.to_string();
    let mut slow = Vec::new();
    for (count, sent) in [(32, 0), (4, 100 << 10), (1, 3 << 20)] {
        for _ in 0..count {
            slow.push(announce(&registry, sent).await);
        }
    }
    for bytes in [1000, 60_000, 100_000, LARGEST] {
        let put = put(&client, "t", &text, bytes).send();
        let answer = tokio::time::timeout(HANG, put).await;
        answer
            .expect("a push waits for clients that send nothing")
            .expect(201);
    }
}

/// Guards: large manifests share one memory budget; one of them continues beside it, and the others wait. A small one
/// does not wait. All of them end.
#[tokio::test(flavor = "multi_thread")]
async fn manifests_wait_for_memory() {
    let registry = short_of_memory(HANG).await;
    let client = registry.client();
    let text = push_layers(&client, "a", &[b"one"]).await.to_string();
    let mut holders = Vec::new();
    for _ in 0..2 {
        holders.push(announce(&registry, 3 << 20).await);
    }
    // The server may not have received all bytes of the holders when the first of these begins.
    let mut tries = 0;
    let last = loop {
        let mut last = Box::pin(put(&client, "last", &text, LARGEST).send());
        let early = tokio::time::timeout(Duration::from_millis(200), last.as_mut()).await;
        if early.is_err() {
            break last;
        }
        tries += 1;
        assert!(
            tries < 20,
            "more manifests were received than the budget allows"
        );
    };
    let small = put(&client, "small", &text, 1000).send();
    let small = tokio::time::timeout(HANG, small).await;
    small.expect("a small manifest waits").expect(201);
    let rest = holders.into_iter().map(|mut holder| async move {
        let more = vec![b' '; LARGEST - (3 << 20)];
        holder.write_all(&more).await.unwrap();
        // The padding alone is no manifest, but the server read it to its end.
        let said = wire::rest(holder).await;
        assert!(said.contains("MANIFEST_INVALID"), "{said}");
    });
    let all = futures_util::future::join(futures_util::future::join_all(rest), last);
    let all = tokio::time::timeout(HANG, all).await;
    let (_, last) = all.expect("large manifests wait for each other");
    last.expect(201);
}

/// Guards: an idle HTTP/2 connection ends as an HTTP/1.1 connection does, also one that never sent a request. One with
/// an unfinished answer is kept, however long the answer takes.
#[tokio::test(flavor = "multi_thread")]
async fn idle_http2_connections_end() {
    let options = ServerOptions {
        header_timeout: SOON,
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let mut stream = TcpStream::connect(registry.client().address())
        .await
        .unwrap();
    // The preface and empty SETTINGS (RFC 9113 section 3.4).
    let opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(opening).await.unwrap();
    let mut said = Vec::new();
    let end = tokio::time::timeout(HANG, stream.read_to_end(&mut said)).await;
    assert!(end.is_ok(), "the server kept an idle HTTP/2 connection");
    // GOAWAY is frame type 7 (RFC 9113 section 6.8): the end is announced to the client.
    let mut frames = said.as_slice();
    let mut kinds = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = frames {
        kinds.push(*kind);
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        frames = rest.get(length..).unwrap_or_default();
    }
    assert!(kinds.contains(&7), "{kinds:?}");

    let client = registry.client();
    let digest = push_blob(&client, "a", &crate::content(7, 3 << 20)).await;
    let mut slow = TcpStream::connect(client.address()).await.unwrap();
    let get = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    slow.write_all(get.as_bytes()).await.unwrap();
    tokio::time::sleep(SOON * 3).await;
    let mut all = vec![0; 3 << 20];
    slow.read_exact(&mut all)
        .await
        .expect("a slow reader's answer");
}
