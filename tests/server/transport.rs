//! HTTP/2, keep-alive, and permission checks before bodies.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonnage_server::ServerOptions;
use tonnage_server::access::{Caller, Decision, Permission, Policy, Verdict};
use tonnage_tests::client::whole;
use tonnage_tests::registry::TestRegistry;

use crate::wire::{self, field, frame, head, next_frame};
use crate::{content, push_blob, push_image, sha256};

/// The time after which a wait counts as failed: far beyond every timeout under test.
const HANG: Duration = Duration::from_secs(60);

/// Guards: HTTP/2 in cleartext with prior knowledge: push, pull, and a header of 1024 ranges (23 KB).
#[tokio::test(flavor = "multi_thread")]
async fn http2() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(1, 3 << 20);
    let digest = sha256(&blob);
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    client
        .call(Method::POST, &path)
        .body(whole(blob.clone()))
        .send_h2()
        .await
        .expect(201);
    let path = format!("/v2/a/blobs/{digest}");
    let answer = client.call(Method::GET, &path).send_h2().await.expect(200);
    assert!(answer.body == blob);
    let answer = client.call(Method::HEAD, &path).send_h2().await.expect(200);
    assert_eq!(answer.header("content-length"), blob.len().to_string());
    let list: Vec<String> = (0..1024)
        .map(|n| format!("{:010}-{:010}", n * 2000, n * 2000 + 9))
        .collect();
    let call = client
        .call(Method::GET, &path)
        .header("range", format!("bytes={}", list.join(",")));
    call.send_h2().await.expect(206);
    client
        .call(Method::GET, "/v2/a/tags/list?n=x")
        .send_h2()
        .await
        .expect_error(400, "UNSUPPORTED");
}

/// Guards: one HTTP/1.1 connection serves many requests, also after an error.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"content").await;
    let mut stream = tokio::net::TcpStream::connect(client.address())
        .await
        .unwrap();
    let get = |path: String, last: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{last}\r\n");
    let requests = [
        get("/v2/nothing".to_owned(), ""),
        get(format!("/v2/a/blobs/{digest}"), ""),
        get("/v2/".to_owned(), "Connection: close\r\n"),
    ];
    stream
        .write_all(requests.concat().as_bytes())
        .await
        .unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let text = String::from_utf8(all).unwrap();
    assert_eq!(text.matches("HTTP/1.1 404").count(), 1, "{text}");
    assert_eq!(text.matches("HTTP/1.1 200").count(), 2, "{text}");
}

#[derive(Debug)]
struct Nothing(Verdict);

impl Policy for Nothing {
    fn decide<'a>(&'a self, _: &'a Caller, _: Permission<'a>) -> Decision<'a, Verdict> {
        Decision::Ready(self.0)
    }
}

/// Guards: no route works without permission, and permission is checked before the body is requested (no 100 Continue).
#[tokio::test(flavor = "multi_thread")]
async fn permission_comes_first() {
    let digest = sha256(b"");
    for (verdict, status, code) in [
        (Verdict::Unauthenticated, 401, "UNAUTHORIZED"),
        (Verdict::Denied, 403, "DENIED"),
        (Verdict::Unavailable, 503, "UNKNOWN"),
    ] {
        let options = ServerOptions {
            policy: Arc::new(Nothing(verdict)),
            ..ServerOptions::default()
        };
        let registry = TestRegistry::with(options).await;
        let client = registry.client();
        let upload = "/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000";
        for (method, path) in [
            (Method::GET, "/v2/".to_owned()),
            (Method::GET, "/v2/_catalog".to_owned()),
            (Method::GET, "/v2/a/tags/list".to_owned()),
            (Method::GET, format!("/v2/a/referrers/{digest}")),
            (Method::GET, "/v2/a/manifests/t".to_owned()),
            (Method::PUT, "/v2/a/manifests/t".to_owned()),
            (Method::DELETE, "/v2/a/manifests/t".to_owned()),
            (Method::GET, format!("/v2/a/blobs/{digest}")),
            (Method::DELETE, format!("/v2/a/blobs/{digest}")),
            (Method::POST, "/v2/a/blobs/uploads/".to_owned()),
            (Method::POST, format!("/v2/a/blobs/uploads/?mount={digest}")),
            (
                Method::POST,
                format!("/v2/a/blobs/uploads/?digest={digest}"),
            ),
            (Method::GET, upload.to_owned()),
            (Method::PATCH, upload.to_owned()),
            (Method::PUT, format!("{upload}?digest={digest}")),
            (Method::DELETE, upload.to_owned()),
        ] {
            let answer = client
                .call(method, &path)
                .send()
                .await
                .expect_error(status, code);
            assert_eq!(answer.lacks("www-authenticate"), status != 401);
            assert_eq!(answer.lacks("retry-after"), status != 503);
        }
        let mut stream = tokio::net::TcpStream::connect(client.address())
            .await
            .unwrap();
        let head = "PUT /v2/a/manifests/t HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut line = vec![0; 12];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(line, format!("HTTP/1.1 {status}").as_bytes());
    }
}

/// Guards: a connection on which nothing is sent, or too little to determine the protocol, is closed.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_are_closed() {
    let options = ServerOptions {
        header_timeout: Duration::from_millis(50),
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    for opening in [
        "",
        "G",
        "PRI * HTTP/2.0\r\n\r\nSM",
        "GET /v2/ HTTP/1.1\r\nHost: x\r\n",
    ] {
        for address in [registry.client().address(), registry.admin().address()] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(opening.as_bytes()).await.unwrap();
            let mut all = Vec::new();
            let end = tokio::time::timeout(HANG, stream.read_to_end(&mut all)).await;
            assert!(end.is_ok(), "{opening:?} does not end the connection");
        }
    }
}

/// Guards: the answer of a client that does not read is aborted and its buffers are freed, so that it cannot starve
/// other pulls.
#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_are_aborted() {
    let options = ServerOptions {
        unread_timeout: Duration::from_millis(500),
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let client = registry.client();
    let digest = push_blob(&client, "a", &content(3, 32 << 20)).await;
    let mut stream = TcpStream::connect(client.address()).await.unwrap();
    let head = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let counted = async {
        loop {
            let answer = registry.admin().get("/metrics").await.expect(200);
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            if text.contains("registry_pull_total{kind=\"blob\",result=\"client\"} 1") {
                break;
            }
        }
    };
    let end = tokio::time::timeout(HANG, counted).await;
    assert!(end.is_ok(), "an unread answer was not aborted");
    let path = format!("/v2/a/blobs/{digest}");
    client.get(&path).await.expect(200);
}

/// Guards: a body that a reset without an error cuts short does not count as complete. hyper ends it as if it were (RFC
/// 9113 section 8.1), so a chunk would be kept that is shorter than announced.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_body_is_not_complete() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = sha256(b"abc");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let head = [head("POST", &path), field("content-length", "10")];
    let mut stream = TcpStream::connect(client.address()).await.unwrap();
    let sent = [
        wire::opening(65_535),
        frame(1, 4, 1, &head.concat()),
        frame(0, 0, 1, b"abc"),
        frame(3, 0, 1, &0_u32.to_be_bytes()),
    ];
    stream.write_all(&sent.concat()).await.unwrap();
    let label = "route=\"/v2/{name}/blobs/uploads/\",method=\"POST\",code=\"";
    let code = loop {
        let answer = registry.admin().get("/metrics").await.expect(200);
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        if let Some((_, rest)) = text.split_once(label) {
            break rest[..3].to_owned();
        }
    };
    assert_eq!(code, "400");
    client
        .head(&format!("/v2/a/blobs/{digest}"))
        .await
        .expect(404);
}

/// Guards: HTTP/2 frames have at most 16 KiB, which the memory counted for a request assumes: SETTINGS_MAX_FRAME_SIZE
/// is not above that (RFC 9113 section 6.5.2), with large receive buffers and without.
#[tokio::test(flavor = "multi_thread")]
async fn frames_are_small() {
    let registry = TestRegistry::start().await;
    let mut connections = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(registry.client().address())
            .await
            .unwrap();
        stream.write_all(&wire::opening(65_535)).await.unwrap();
        let settings = next_frame(&mut stream, 4, 0).await;
        let setting = settings.chunks_exact(6).find(|one| one[..2] == [0, 5]);
        let largest = setting.map_or(16 << 10, |one| {
            u32::from_be_bytes([one[2], one[3], one[4], one[5]])
        });
        assert_eq!(largest, 16 << 10);
        connections.push(stream);
    }
}

/// Guards: an HTTP/2 client that does not read single streams loses their buffers, of blobs, lists and answers that are
/// kept in memory, although its connection is alive. Such a stream is reset, and the connection continues.
#[tokio::test(flavor = "multi_thread")]
async fn unread_streams_are_reset() {
    let options = ServerOptions {
        unread_timeout: Duration::from_millis(50),
        ..ServerOptions::default()
    };
    let registry = TestRegistry::with(options).await;
    let digest = push_blob(&registry.client(), "a", &content(4, 300_000)).await;
    let blob = format!("/v2/a/blobs/{digest}");
    push_image(&registry.client(), "a", "t", b"layer").await;
    let kept = "/v2/a/manifests/t";
    for _ in 0..3 {
        registry.client().get(kept).await.expect(200);
    }
    let address = registry.client().address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&wire::opening(1)).await.unwrap();
    for (number, path) in [(1, &*blob), (5, "/v2/_catalog"), (9, kept)] {
        let get = frame(1, 5, number, &head("GET", path));
        stream.write_all(&get).await.unwrap();
        // RST_STREAM with CANCEL (RFC 9113 sections 6.4 and 7).
        let reason = next_frame(&mut stream, 3, number).await;
        assert_eq!(reason, 8_u32.to_be_bytes());
        let again = frame(1, 5, number + 2, &head("HEAD", path));
        stream.write_all(&again).await.unwrap();
        next_frame(&mut stream, 1, number + 2).await;
    }
}
