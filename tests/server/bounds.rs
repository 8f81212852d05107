//! Clients that are slow on purpose, or too many: nobody holds what is shared by doing nothing.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonnage_server::ServerOptions;
use tonnage_tests::client::whole;
use tonnage_tests::registry::TestRegistry;

use crate::{MANIFEST, push_blob, push_layers};

/// By then a wait has failed: far beyond any time out that is tested.
const HANG: Duration = Duration::from_secs(60);
/// Between two bytes of a client that is slow on purpose.
const PACE: Duration = Duration::from_millis(2);
/// The time out under test; more than [`PACE`], so that progress alone cannot be what saves the client.
const SOON: Duration = Duration::from_millis(100);

/// Sends `opening`, then one byte of `more` after the other, over and over, until the server has enough of it; what it said.
async fn dribble(registry: &TestRegistry, opening: &[u8], more: &[u8]) -> Vec<u8> {
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
            // A reset is as good an end as an early one.
            end = from.read_to_end(&mut said) => drop(end),
            () = sending => {}
        }
    });
    assert!(ended.await.is_ok(), "a client that dribbles is kept");
    said
}

/// Guards: the time for a head is for all of it (slow loris): a client that sends header after header, byte by byte, is let go.
#[tokio::test(flavor = "multi_thread")]
async fn a_dribbled_head_ends() {
    let options = ServerOptions {
        header_timeout: SOON,
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let opening = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n";
    let said = dribble(&registry, opening, b"X-A: b\r\n").await;
    let text = String::from_utf8_lossy(&said);
    assert!(!text.starts_with("HTTP/1.1 2"), "{text}");
    registry.client().get("/v2/").await.expect(200);
}

/// Guards: a manifest has a time for all of it, since it is held in memory and has a place of a budget meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_dribbled_manifest_ends() {
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
    let said = dribble(&registry, opening.as_bytes(), b" ").await;
    let text = String::from_utf8_lossy(&said);
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    assert!(text.contains("connection: close"), "{text}");
}

/// Guards: manifests under way share one budget of memory, and those beyond it wait, before their first byte is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn manifests_wait_for_memory() {
    let options = ServerOptions {
        manifest_budget_bytes: 1000,
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let client = registry.client();
    let text = push_layers(&client, "a", &[b"one"]).await.to_string();
    let mut holder = TcpStream::connect(client.address()).await.unwrap();
    let head = format!(
        "PUT /v2/a/manifests/first HTTP/1.1\r\nHost: x\r\nContent-Type: {MANIFEST}\r\nContent-Length: 1000\r\n\
         Expect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    holder.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body once it has room for it.
    let mut interim = [0; 25];
    holder.read_exact(&mut interim).await.unwrap();
    let put = client
        .call(Method::PUT, "/v2/a/manifests/second")
        .header("content-type", MANIFEST)
        .body(whole(text.clone()));
    let mut second = std::pin::pin!(put.send());
    let early = tokio::time::timeout(Duration::from_millis(200), second.as_mut()).await;
    assert!(early.is_err(), "there was room beyond the budget");
    let padded = format!("{text:1000}");
    holder.write_all(padded.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    holder.read_to_end(&mut rest).await.unwrap();
    assert!(
        rest.starts_with(b"HTTP/1.1 201"),
        "{:?}",
        String::from_utf8_lossy(&rest)
    );
    second.await.expect(201);
}

/// Guards: one that waits for its turn longer than is useful is told so with 429 and Retry-After (spec, "Error Codes").
#[tokio::test(flavor = "multi_thread")]
async fn manifests_do_not_wait_for_ever() {
    let options = ServerOptions {
        manifest_budget_bytes: 1000,
        manifest_timeout: Duration::from_secs(1),
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let client = registry.client();
    let text = push_layers(&client, "a", &[b"one"]).await.to_string();
    let hold = async || {
        let mut holder = TcpStream::connect(client.address()).await.unwrap();
        let head = b"PUT /v2/a/manifests/first HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n";
        holder.write_all(head).await.unwrap();
        holder
    };
    // Two that send nothing, one behind the other, so that the third is out of time before the second is.
    let mut first = hold().await;
    first.read_exact(&mut [0; 25]).await.unwrap();
    let refused = loop {
        let second = hold().await;
        let put = client
            .call(Method::PUT, "/v2/a/manifests/third")
            .header("content-type", MANIFEST)
            .body(whole(text.clone()));
        let answer = put.send().await;
        drop(second);
        if answer.status != 201 {
            break answer;
        }
    };
    let refused = refused.expect_error(429, "TOOMANYREQUESTS");
    assert_eq!(refused.header("retry-after"), "30");
}

/// Guards: an HTTP/2 connection that asks for nothing ends as one of HTTP/1.1 does, also one that never asked; one whose answer is on
/// its way does not, however long that takes.
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
    assert!(end.is_ok(), "an idle HTTP/2 connection is kept");
    // GOAWAY is frame type 7 (RFC 9113 section 6.8): the client is told, and not just cut off.
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
