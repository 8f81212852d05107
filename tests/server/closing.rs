//! Ends of requests and connections: answers without a body, early answers, clients that end their half first.

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonnage_tests::registry::TestRegistry;

use crate::wire::{self, field, frame, head, rest, say};
use crate::{MANIFEST, begin, push_blob, push_layers, sha256};

const NO_UPLOAD: &str = "/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000";

/// Guards: RFC 9110 sections 9.3.2 and 6.4.1: no answer to HEAD, no 204 and no 304 has a body, errors included. On
/// HTTP/2 a client treats such a body as a protocol error. The answer to HEAD has the same length header as the one to
/// GET.
#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_have_none() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"content").await;
    let location = begin(&client, "a").await;
    let blob = format!("/v2/a/blobs/{digest}");
    let absent = format!("/v2/a/blobs/{}", sha256(b"absent"));
    let any = ("if-none-match", "*");
    let other = ("if-match", "\"x\"");
    let plain = ("accept", "*/*");
    for (path, header, status) in [
        ("/v2/none/manifests/x", plain, 404),
        (&*absent, plain, 404),
        ("/v2/a/blobs/sha256:x", plain, 400),
        ("/v2/a/tags/list?n=x", plain, 400),
        ("/nothing", plain, 404),
        (&*blob, other, 412),
        (&*blob, any, 304),
        (&*location, plain, 204),
        ("/v2/a/blobs/uploads/", plain, 405),
    ] {
        let call = |method| {
            let call = client.call(method, path).header(header.0, header.1);
            // Error bodies repeat the request id, so their lengths depend on it.
            call.header("x-request-id", "1")
        };
        let get = call(Method::GET).send().await.expect(status);
        for head in [
            call(Method::HEAD).send().await.expect(status),
            call(Method::HEAD).send_h2().await.expect(status),
        ] {
            assert!(head.body.is_empty(), "{path}");
            let length = head.headers.get("content-length");
            assert_eq!(length, get.headers.get("content-length"), "{path}");
            assert_eq!(length.is_none(), [204, 304].contains(&status), "{path}");
        }
    }
}

/// Guards: RFC 9112 section 9.6: a client may end its half after its request. The request is carried out and answered.
/// A body shorter than its announced length is still recognized.
#[tokio::test(flavor = "multi_thread")]
async fn clients_may_end_their_half_first() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let manifest = push_layers(&client, "a", &[b"one"]).await.to_string();
    let put = |length: usize| {
        format!(
            "PUT /v2/a/manifests/t HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MANIFEST}\r\nContent-Length: {length}\r\n\r\n{manifest}"
        )
    };
    let get = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let chunked = format!(
        "POST /v2/a/blobs/uploads/?digest={} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        sha256(b"ab")
    );
    for (request, expected) in [
        (put(manifest.len()), vec!["201"]),
        (get.to_owned(), vec!["200"]),
        (get.repeat(2), vec!["200", "200"]),
        (chunked, vec!["201"]),
        (put(manifest.len() + 1), vec!["400"]),
    ] {
        // Repeated, because the kernel decides whether the end arrives together with the request.
        for _ in 0..20 {
            let mut stream = TcpStream::connect(client.address()).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let said = rest(stream).await;
            let statuses: Vec<_> = said
                .split("HTTP/1.1 ")
                .skip(1)
                .map(|part| &part[..3])
                .collect();
            assert_eq!(statuses, expected, "{request}: {said}");
        }
    }
    client.head("/v2/a/manifests/t").await.expect(200);
}

/// Guards: RFC 9113 section 8.1: an HTTP/2 request whose stream has ended is complete, so a client may then end its
/// half of the connection. The request is carried out and answered. One whose stream has not ended fails.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http2_may_end_their_half_first() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let manifest = push_layers(&client, "a", &[b"one"]).await.to_string();
    let put = [
        head("PUT", "/v2/a/manifests/t"),
        field("content-type", MANIFEST),
    ];
    let get = head("GET", "/v2/");
    for number in 0..20 {
        let mut stream = TcpStream::connect(client.address()).await.unwrap();
        let cut = number % 2 == 1;
        let sent = [
            wire::opening(65_535),
            frame(1, 4, 1, &put.concat()),
            frame(0, u8::from(!cut), 1, manifest.as_bytes()),
            frame(1, 5, 3, &get),
        ];
        stream.write_all(&sent.concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answers = [(1, vec![]), (3, vec![])];
        for _ in 0..2 {
            let (of, head) = wire::next_head(&mut stream).await;
            let answer = answers.iter_mut().find(|(stream, _)| *stream == of);
            answer.expect("a stream").1 = head;
        }
        // Indexed fields of `:status` (RFC 7541 appendix A): 400 and 200.
        let [(_, put), (_, get)] = answers;
        assert_eq!(put.first() == Some(&0x8c), cut, "{put:?}");
        assert_eq!(get.first(), Some(&0x88));
        let ended = tokio::time::timeout(wire::HANG, stream.read_to_end(&mut Vec::new())).await;
        ended.expect("the server kept the connection").unwrap();
    }
    client.head("/v2/a/manifests/t").await.expect(200);
}

/// Sends `head` and `megabytes` of body, and only then reads.
async fn send_all(registry: &TestRegistry, head: &str, megabytes: usize) -> String {
    let mut stream = TcpStream::connect(registry.client().address())
        .await
        .unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![0; 1 << 20];
    for _ in 0..megabytes {
        stream.write_all(&piece).await.unwrap();
    }
    rest(stream).await
}

/// Guards: RFC 9112 section 9.6: an answer that is sent before the body is read reaches a client that first sends the
/// whole body, whatever its size, and whether or not the client waited for 100 Continue. The answer announces that the
/// connection closes.
#[tokio::test(flavor = "multi_thread")]
async fn early_answers_are_not_lost() {
    let registry = TestRegistry::start().await;
    let digest = sha256(b"");
    for megabytes in [5, 9, 64] {
        for expect in ["", "Expect: 100-continue\r\n"] {
            let length = megabytes << 20;
            for target in [
                format!("PUT {NO_UPLOAD}?digest={digest}"),
                format!("PUT {NO_UPLOAD}"),
                "PUT /v2/a/manifests/t".to_owned(),
                "GET /v2/none/manifests/t".to_owned(),
            ] {
                let head = format!(
                    "{target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{expect}\r\n"
                );
                let said = send_all(&registry, &head, megabytes).await;
                assert!(said.starts_with("HTTP/1.1 4"), "{head}: {said}");
                assert!(said.contains("connection: close"), "{head}: {said}");
                assert!(said.ends_with("]}"), "{head}: {said}");
            }
        }
    }
    // One chunk of 64 MiB.
    let head = format!(
        "PUT {NO_UPLOAD}?digest={digest} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4000000\r\n"
    );
    let said = send_all(&registry, &head, 64).await;
    assert!(said.starts_with("HTTP/1.1 404"), "{said}");
    assert!(said.contains("connection: close"), "{said}");
}

/// Guards: RFC 9113 section 8.1: on HTTP/2 no reset follows directly after an early answer, because curl takes an early
/// reset for the answer. The body is read further, and the connection serves other requests meanwhile and afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn early_answers_over_http2_are_not_lost() {
    let registry = TestRegistry::start().await;
    let mut stream = TcpStream::connect(registry.client().address())
        .await
        .unwrap();
    let opening = [
        wire::opening(65_535),
        frame(1, 4, 1, &head("PUT", NO_UPLOAD)),
        frame(0, 0, 1, &[0; 10_000]),
    ];
    stream.write_all(&opening.concat()).await.unwrap();
    let mut seen = Vec::new();
    // Frame type, stream, and the flag for the stream's end (RFC 9113 section 4.1).
    let mut next = async |stream: &mut TcpStream| {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, _, _, _, id] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        seen.push(kind);
        (kind, id, flags & 1 == 1)
    };
    while next(&mut stream).await != (0, 1, true) {}
    let rest = [
        frame(0, 1, 1, &[0; 10_000]),
        frame(1, 5, 3, &head("GET", "/v2/")),
    ];
    stream.write_all(&rest.concat()).await.unwrap();
    while next(&mut stream).await != (0, 3, true) {}
    assert!(!seen.contains(&3), "{seen:?}");
}

/// Guards: the answer to a head that is too long reaches a client that is still sending the head.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_rejected_heads_are_not_lost() {
    let registry = TestRegistry::start().await;
    let head = format!("GET /v2/ HTTP/1.1\r\nX-Long: {}", "x".repeat(16 << 20));
    let said = say(registry.client().address(), head).await;
    assert!(said.starts_with("HTTP/1.1 431"), "{said}");
}

/// Guards: a small body that no handler reads does not cost the connection. A client that waits for 100 Continue gets
/// its answer without it.
#[tokio::test(flavor = "multi_thread")]
async fn small_unread_bodies_keep_the_connection() {
    let registry = TestRegistry::start().await;
    let address = registry.client().address();
    let put = format!("PUT {NO_UPLOAD} HTTP/1.1\r\nHost: localhost\r\n");
    let last = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let body = "x".repeat(100_000);
    let small = format!("{put}Content-Length: 100000\r\n\r\n{body}{last}");
    let said = say(address, small).await;
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    let waiting = format!("{put}Content-Length: 10\r\nExpect: 100-continue\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(waiting.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    assert!(said.contains("connection: close"), "{said}");
}

/// Guards: browsers run no served content, whoever pushed it. Every answer has the headers for this, also errors and
/// those of the admin listener.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_runs_in_a_browser() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let digest = push_blob(&client, "a", b"<script>alert(1)</script>").await;
    let mut answers = vec![
        registry.admin().get("/metrics").await,
        registry.admin().get("/nothing").await,
    ];
    for path in [
        "/v2/",
        "/nothing",
        "/v2/a/manifests/none",
        "/v2/_catalog",
        &format!("/v2/a/blobs/{digest}"),
    ] {
        answers.push(client.get(path).await);
        answers.push(client.head(path).await);
    }
    let blob = format!("/v2/a/blobs/{digest}");
    let part = client
        .call(Method::GET, &blob)
        .header("range", "bytes=0-3,5-6");
    answers.push(part.send().await.expect(206));
    let same = client.call(Method::GET, &blob).header("if-none-match", "*");
    answers.push(same.send().await.expect(304));
    answers.push(client.post("/v2/a/blobs/uploads/").await.expect(202));
    for answer in answers {
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let policy = answer.header("content-security-policy");
        assert_eq!(policy, "default-src 'none'; sandbox");
    }
}
