//! Connections have places, heads have a size.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinSet;
use tonnage_server::{Server, ServerOptions};
use tonnage_tests::registry::TestRegistry;

use crate::unread::connect;
use crate::{MANIFEST, descriptor, push_layers, put_manifest, sha256, wire};

const GET: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
/// Between two bytes of a client that is slow on purpose.
const PACE: Duration = Duration::from_millis(20);
/// By then a wait has failed, below the time for which an idle connection is kept.
const HANG: Duration = Duration::from_secs(20);

async fn registry_with(connections_max: usize) -> TestRegistry {
    let options = ServerOptions {
        connections_max,
        ..ServerOptions::default()
    };
    TestRegistry::with(options).await
}

/// Guards: more connections than a hundred that come at once are let in at once: a client that has no answer to its SYN sends it again only
/// after a second, and then later and later.
#[tokio::test]
async fn a_burst_of_connections_is_let_in() {
    let options = ServerOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: None,
        ..ServerOptions::default()
    };
    // Nothing is accepted.
    let bound = Server::bind(options).expect("a free port");
    let address = bound.address();
    // No queue is longer than the system lets it be.
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let count = most.trim().parse::<usize>().unwrap().min(300);
    let burst = async {
        let mut waiting = Vec::new();
        for _ in 0..count {
            waiting.push(TcpStream::connect(address).await.unwrap());
        }
    };
    let let_in = tokio::time::timeout(HANG, burst).await;
    assert!(let_in.is_ok(), "the kernel's queue is too short");
}

/// A connection that has sent `bytes`.
async fn sent(registry: &TestRegistry, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(registry.client().address())
        .await
        .unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Reads the first line of an answer.
async fn status(stream: &mut TcpStream) -> String {
    let mut line = [0; 12];
    let read = tokio::time::timeout(HANG, stream.read_exact(&mut line)).await;
    read.expect("no answer").expect("an answer");
    String::from_utf8_lossy(&line).into_owned()
}

/// Guards: when all places are taken, the connection that has been idle the longest leaves for a new one: one that said nothing, one of
/// HTTP/2, and one that was answered, in their order.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_leave_for_new_ones() {
    let registry = registry_with(3).await;
    let silent = sent(&registry, b"").await;
    // The preface and empty SETTINGS (RFC 9113 section 3.4).
    let mut http2 = sent(
        &registry,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    )
    .await;
    http2.read_exact(&mut [0; 9]).await.unwrap();
    let mut answered = sent(&registry, GET).await;
    assert_eq!(status(&mut answered).await, "HTTP/1.1 200");
    let mut kept = Vec::new();
    for mut idle in [silent, http2, answered] {
        let mut new = sent(&registry, GET).await;
        assert_eq!(status(&mut new).await, "HTTP/1.1 200");
        // It has left before the new one had its place.
        let ended = tokio::time::timeout(HANG, idle.read_to_end(&mut Vec::new())).await;
        ended.expect("it is kept").unwrap();
        kept.push(new);
    }
}

/// Guards: a connection that was just accepted may send its first request, though another waits for its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_may_ask_once() {
    let registry = registry_with(1).await;
    let mut first = sent(&registry, b"").await;
    let mut second = sent(&registry, GET).await;
    let early = tokio::time::timeout(Duration::from_millis(200), first.readable()).await;
    assert!(early.is_err(), "the first was closed before it could ask");
    first.write_all(GET).await.unwrap();
    assert_eq!(status(&mut first).await, "HTTP/1.1 200");
    assert_eq!(status(&mut second).await, "HTTP/1.1 200");
}

/// Guards: a stop waits for no request on a connection on which nothing was sent, nor for one of HTTP/2 that was answered and whose
/// client does not react.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_silent_connections() {
    let registry = TestRegistry::start().await;
    let _silent = sent(&registry, b"").await;
    let opened = [
        wire::opening(1 << 16),
        wire::frame(1, 5, 1, &wire::head("GET", "/v2/")),
    ];
    let mut answered = sent(&registry, &opened.concat()).await;
    wire::next_frame(&mut answered, 0, 1).await;
    // Accepted after them.
    registry.client().get("/v2/").await.expect(200);
    let stopped = tokio::time::timeout(HANG, registry.stop()).await;
    assert!(stopped.is_ok(), "the stop waits for the whole drain time");
}

/// Guards: a connection whose answer is known to its last byte, and not sent yet, is not idle: it keeps its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_keeps_its_place_until_its_answer_is_sent() {
    let registry = registry_with(1).await;
    let client = registry.client();
    let mut referrer = push_layers(&client, "a", &[b"layer"]).await;
    referrer["subject"] = descriptor(MANIFEST, b"subject");
    // One piece, and more than the kernel takes.
    referrer["annotations"] = json!({"a": "x".repeat(3 << 20)});
    put_manifest(&client, "a", "t", &referrer).await;
    let mut slow = connect(&registry).await;
    let subject = sha256(b"subject");
    let get = format!("GET /v2/a/referrers/{subject} HTTP/1.1\r\nHost: x\r\n\r\n");
    slow.write_all(get.as_bytes()).await.unwrap();
    assert_eq!(status(&mut slow).await, "HTTP/1.1 200");
    let mut second = sent(&registry, GET).await;
    let early = tokio::time::timeout(Duration::from_secs(2), second.readable()).await;
    assert!(early.is_err(), "a second connection was served");
    let mut rest = Vec::new();
    let reading = tokio::time::timeout(HANG, slow.read_to_end(&mut rest)).await;
    reading.expect("it is kept").unwrap();
    assert!(rest.ends_with(b"]}"), "it was cut");
    assert_eq!(status(&mut second).await, "HTTP/1.1 200");
}

/// Guards: a request under way keeps its place, and a client beyond the limit waits for it instead of taking the store's files.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_connection_keeps_its_place() {
    let registry = registry_with(1).await;
    let head = b"PUT /v2/a/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    let mut busy = sent(&registry, head).await;
    assert_eq!(status(&mut busy).await, "HTTP/1.1 100");
    let mut second = sent(&registry, GET).await;
    let early = tokio::time::timeout(Duration::from_millis(200), second.readable()).await;
    assert!(early.is_err(), "a second connection was served");
    drop(busy);
    assert_eq!(status(&mut second).await, "HTTP/1.1 200");
}

/// Pushes byte by byte from another address of this machine, again and again, and notes each time that it is asked for the bytes.
async fn drip(address: SocketAddr, begun: UnboundedSender<()>) {
    let digest = sha256(b"");
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let mut sent = stream.write_all(head.as_bytes()).await;
        if stream.read_exact(&mut [0; 25]).await.is_err() {
            continue;
        }
        begun.send(()).unwrap();
        while sent.is_ok() {
            tokio::time::sleep(PACE).await;
            sent = stream.write_all(b"x").await;
        }
    }
}

/// Guards: an address whose bodies come byte by byte on all places, and that wants more of them, keeps no other address out: each new
/// client of that is answered, over and over.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_keep_another_out() {
    let registry = registry_with(4).await;
    let (begun, mut places) = mpsc::unbounded_channel();
    let mut drips = JoinSet::new();
    for _ in 0..8 {
        drips.spawn(drip(registry.client().address(), begun.clone()));
    }
    for _ in 0..4 {
        places.recv().await.unwrap();
    }
    for _ in 0..3 {
        let mut new = sent(&registry, GET).await;
        assert_eq!(status(&mut new).await, "HTTP/1.1 200");
    }
}

/// Guards: the head of a request has a size of its own, far below what is read of a body at once, and one that is larger is told so
/// (RFC 6585 section 5).
#[tokio::test(flavor = "multi_thread")]
async fn heads_have_a_size() {
    let registry = TestRegistry::start().await;
    let address = registry.client().address();
    let get = |bytes: usize| {
        let pad = "a".repeat(bytes);
        format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Pad: {pad}\r\n\r\n")
    };
    let fits = wire::say(address, get(60 << 10)).await;
    assert!(fits.starts_with("HTTP/1.1 200"), "{fits}");
    let large = wire::say(address, get(65 << 10)).await;
    assert!(large.starts_with("HTTP/1.1 431"), "{large}");
}
