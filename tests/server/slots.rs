//! Slots for connections, and the size limit of heads.

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
/// The pause between two bytes of a slow client.
const PACE: Duration = Duration::from_millis(20);
/// The time after which a wait counts as failed, less than the timeout of an idle connection.
const HANG: Duration = Duration::from_secs(20);

async fn registry_with(connections_max: usize) -> TestRegistry {
    let options = ServerOptions {
        connections_max,
        ..ServerOptions::default()
    };
    TestRegistry::with(options).await
}

/// Guards: the kernel's queue holds a burst of more than a hundred connections. A client whose SYN is dropped tries
/// again only after a second, then at growing intervals.
#[tokio::test]
async fn a_burst_of_connections_is_accepted() {
    let options = ServerOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: None,
        ..ServerOptions::default()
    };
    // The server accepts none of them.
    let bound = Server::bind(options).expect("a free port");
    let address = bound.address();
    // The system limits the length of every queue.
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let count = most.trim().parse::<usize>().unwrap().min(300);
    let burst = async {
        let mut waiting = Vec::new();
        for _ in 0..count {
            waiting.push(TcpStream::connect(address).await.unwrap());
        }
    };
    let connected = tokio::time::timeout(HANG, burst).await;
    assert!(connected.is_ok(), "the kernel's queue is too short");
}

/// Connects and sends `bytes`.
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

/// Guards: when all slots are taken, the connection that has been idle the longest is evicted for a new one. The order
/// is the same for one that sent nothing, one of HTTP/2, and one that was answered.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_evicted_for_new_ones() {
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
        // It was evicted before the new one got its slot.
        let ended = tokio::time::timeout(HANG, idle.read_to_end(&mut Vec::new())).await;
        ended.expect("the server kept the idle connection").unwrap();
        kept.push(new);
    }
}

/// Guards: a connection that was just accepted may send its first request, although another waits for its slot.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_may_send_one_request() {
    let registry = registry_with(1).await;
    let mut first = sent(&registry, b"").await;
    let mut second = sent(&registry, GET).await;
    let early = tokio::time::timeout(Duration::from_millis(200), first.readable()).await;
    assert!(
        early.is_err(),
        "the first was closed before it could send a request"
    );
    first.write_all(GET).await.unwrap();
    assert_eq!(status(&mut first).await, "HTTP/1.1 200");
    assert_eq!(status(&mut second).await, "HTTP/1.1 200");
}

/// Guards: a stop does not wait on connections that sent nothing, or on an HTTP/2 connection whose requests were
/// answered and whose client does not react.
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

/// Guards: a connection whose answer is ready but not fully sent is not idle: it keeps its slot.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_keeps_its_slot_until_its_answer_is_sent() {
    let registry = registry_with(1).await;
    let client = registry.client();
    let mut referrer = push_layers(&client, "a", &[b"layer"]).await;
    referrer["subject"] = descriptor(MANIFEST, b"subject");
    // One piece, larger than the kernel's buffers.
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
    reading.expect("the connection was evicted").unwrap();
    assert!(rest.ends_with(b"]}"), "the answer was cut");
    assert_eq!(status(&mut second).await, "HTTP/1.1 200");
}

/// Guards: an active request keeps its slot. A client beyond the limit waits instead of using descriptors that the
/// store needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_connection_keeps_its_slot() {
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

/// Pushes byte by byte from another address of this machine, over and over. Sends a message each time the server asks
/// for the body.
async fn push_slowly(address: SocketAddr, begun: UnboundedSender<()>) {
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

/// Guards: an address whose slow bodies take all slots, and that wants more of them, does not lock another address out:
/// each new client of that one is answered.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_keep_another_out() {
    let registry = registry_with(4).await;
    let (begun, mut slots) = mpsc::unbounded_channel();
    let mut slow_pushes = JoinSet::new();
    for _ in 0..8 {
        slow_pushes.spawn(push_slowly(registry.client().address(), begun.clone()));
    }
    for _ in 0..4 {
        slots.recv().await.unwrap();
    }
    for _ in 0..3 {
        let mut new = sent(&registry, GET).await;
        assert_eq!(status(&mut new).await, "HTTP/1.1 200");
    }
}

/// Guards: heads have a limit of their own, far below the size in which bodies are read. A larger head is 431 (RFC 6585
/// section 5).
#[tokio::test(flavor = "multi_thread")]
async fn heads_have_a_limit() {
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
