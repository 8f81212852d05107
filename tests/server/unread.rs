//! Clients that do not read their answers, while other clients need the memory of these answers.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tonnage_engine::{Digest, Options};
use tonnage_server::ServerOptions;
use tonnage_tests::registry::TestRegistry;

use crate::wire::{self, frame, head};
use crate::{
    MANIFEST, content, descriptor, push_blob, push_image, push_layers, put_manifest, sha256,
};

/// The time after which a wait counts as failed. It is below the 50 s after which an HTTP/2 client that answers no ping
/// is disconnected.
const HANG: Duration = Duration::from_secs(30);
/// More than the kernel buffers for a client that does not read.
const LENGTH: usize = 8 << 20;

/// Starts a registry with little memory for reads, a large blob, and an image under the tag `t` in `a`.
async fn short_of_memory() -> (TestRegistry, Digest) {
    let store = Options {
        read_budget_bytes: 4 << 20,
        read_stall: Duration::from_millis(50),
        ..Options::default()
    };
    let registry = TestRegistry::with_store(ServerOptions::default(), store).await;
    let client = registry.client();
    push_image(&client, "a", "t", b"layer").await;
    let digest = push_blob(&client, "a", &content(5, LENGTH)).await;
    (registry, digest)
}

/// Opens a connection with a small receive buffer.
pub(crate) async fn connect(registry: &TestRegistry) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(registry.client().address()).await.unwrap()
}

/// Checks that small and large requests of other clients are answered, several times.
async fn others_are_served(registry: &TestRegistry, digest: Digest) {
    let client = registry.client();
    let blob = format!("/v2/a/blobs/{digest}");
    let served = async {
        for _ in 0..3 {
            client.get("/v2/a/manifests/t").await.expect(200);
            client.get("/v2/a/tags/list").await.expect(200);
            let answer = client.get(&blob).await.expect(200);
            assert!(answer.body == content(5, LENGTH));
        }
    };
    let served = tokio::time::timeout(HANG, served).await;
    assert!(served.is_ok(), "others wait for clients that do not read");
}

/// Guards: clients that do not read lose their answers to others, however many they are. Every new client gets its
/// first bytes, and clients that read get whole answers.
#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_leave_memory_to_others() {
    let (registry, digest) = short_of_memory().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(&registry).await;
        let get = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(get.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    for (number, stream) in silent.iter_mut().enumerate() {
        let mut line = [0; 12];
        let begun = tokio::time::timeout(HANG, stream.read_exact(&mut line)).await;
        begun
            .unwrap_or_else(|_| panic!("client {number} waits"))
            .unwrap();
        assert_eq!(&line, b"HTTP/1.1 200");
    }
    others_are_served(&registry, digest).await;
}

/// Reads frames until answers have begun on `count` streams, or the connection ends.
async fn begun(stream: &mut TcpStream, count: usize) {
    let mut answers = 0;
    let mut head = [0; 9];
    while answers < count && stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        // HEADERS is frame type 1 (RFC 9113 section 6.2).
        answers += usize::from(head[3] == 1);
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
    }
}

/// Guards: the same for HTTP/2 connections with many streams of blobs and lists whose windows stay full.
#[tokio::test(flavor = "multi_thread")]
async fn unread_streams_leave_memory_to_others() {
    let (registry, digest) = short_of_memory().await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&registry).await;
        let mut sent = wire::opening(1);
        for number in 0..100 {
            let path = match number % 2 {
                0 => format!("/v2/a/blobs/{digest}"),
                _ => "/v2/a/tags/list".to_owned(),
            };
            sent.extend(frame(1, 5, 2 * number + 1, &head("GET", &path)));
        }
        stream.write_all(&sent).await.unwrap();
        connections.push(stream);
    }
    for (number, stream) in connections.iter_mut().enumerate() {
        let begun = tokio::time::timeout(HANG, begun(stream, 4)).await;
        assert!(begun.is_ok(), "connection {number} waits");
    }
    others_are_served(&registry, digest).await;
}

/// Guards: if an HTTP/2 client does not read a list, only that stream ends when others need memory. A push on another
/// stream, which waits for its client, succeeds, and the connection is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_unread_answer_ends_alone() {
    let (registry, digest) = short_of_memory().await;
    let pushed = crate::sha256(b"pushed");
    let push = format!("/v2/a/blobs/uploads/?digest={pushed}");
    let mut stream = connect(&registry).await;
    let sent = [
        wire::opening(1),
        frame(1, 4, 1, &head("POST", &push)),
        frame(0, 0, 1, b"push"),
        frame(1, 5, 3, &head("GET", "/v2/a/tags/list")),
    ];
    stream.write_all(&sent.concat()).await.unwrap();
    wire::next_frame(&mut stream, 1, 3).await;
    let mut others = Vec::new();
    let pressure = async {
        loop {
            let mut other = connect(&registry).await;
            let get = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
            other.write_all(get.as_bytes()).await.unwrap();
            others.push(other);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = wire::next_frame(&mut stream, 3, 3) => {}
        () = pressure => {}
    }
    let rest = frame(0, 1, 1, b"ed");
    stream.write_all(&rest).await.unwrap();
    wire::next_frame(&mut stream, 1, 1).await;
    let path = format!("/v2/a/blobs/{pushed}");
    registry.client().head(&path).await.expect(200);
}

/// Guards: clients that do not read do not keep others from opening blob files. At the limit of open files each new
/// client is answered, an answer that made no progress for long ends, and a push gets the files that it needs.
#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_do_not_keep_files_open() {
    let store = Options {
        open_files_max: 8,
        spill_threshold_bytes: 1 << 20,
        read_stall: Duration::from_millis(50),
        ..Options::default()
    };
    let registry = TestRegistry::with_store(ServerOptions::default(), store).await;
    let mut digests = Vec::new();
    for seed in 0..12 {
        let blob = content(seed, 2 << 20);
        digests.push(push_blob(&registry.client(), "a", &blob).await);
    }
    let mut silent = Vec::new();
    for digest in digests {
        let mut stream = connect(&registry).await;
        let get = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(get.as_bytes()).await.unwrap();
        let mut line = [0; 12];
        let begun = tokio::time::timeout(HANG, stream.read_exact(&mut line)).await;
        begun.expect("a client waits").unwrap();
        assert_eq!(&line, b"HTTP/1.1 200");
        silent.push(stream);
    }
    push_blob(&registry.client(), "a", &content(12, 2 << 20)).await;
}

/// Guards: unread pages of referrers, one for each connection or many on one, leave memory to others: a client that
/// reads gets a whole page.
#[tokio::test(flavor = "multi_thread")]
async fn unread_pages_leave_memory_to_others() {
    let store = Options {
        read_stall: Duration::from_millis(50),
        ..Options::default()
    };
    let registry = TestRegistry::with_store(ServerOptions::default(), store).await;
    let client = registry.client();
    let mut referrer = push_layers(&client, "a", &[b"layer"]).await;
    referrer["subject"] = descriptor(MANIFEST, b"subject");
    for number in 0..3 {
        // Three of them make a page of nearly the largest size.
        referrer["annotations"] = json!({"a": "x".repeat((1 << 20) + number)});
        put_manifest(&client, "a", &format!("t{number}"), &referrer).await;
    }
    let path = format!("/v2/a/referrers/{}", sha256(b"subject"));
    let mut streams = connect(&registry).await;
    let mut sent = wire::opening(1);
    for number in 0..20 {
        sent.extend(frame(1, 5, 2 * number + 1, &head("GET", &path)));
    }
    streams.write_all(&sent).await.unwrap();
    begun(&mut streams, 1).await;
    let mut silent = Vec::new();
    for number in 0..20 {
        let mut stream = connect(&registry).await;
        let get = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(get.as_bytes()).await.unwrap();
        let mut line = [0; 12];
        let begun = tokio::time::timeout(HANG, stream.read_exact(&mut line)).await;
        begun
            .unwrap_or_else(|_| panic!("client {number} waits"))
            .unwrap();
        silent.push(stream);
    }
    for _ in 0..3 {
        let page = client.get(&path).await.expect(200);
        assert!(!page.headers.contains_key("link"), "the page is short");
    }
}
