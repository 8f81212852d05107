//! Ranges (RFC 9110 section 14; spec, "Pulling blobs").

use http::Method;
use tonnage_tests::client::{Answer, Client};
use tonnage_tests::registry::TestRegistry;
use tonnage_tests::say;

use crate::{content, push_blob, push_image};

async fn ranged(client: &Client, path: &str, range: &str) -> Answer {
    client
        .call(Method::GET, path)
        .header("range", range)
        .send()
        .await
}

/// Guards: 206 with exact Content-Length and Content-Range for first, last, open-ended and clamped ranges. 416 for a
/// range outside, and if the last byte is before the first.
#[tokio::test(flavor = "multi_thread")]
async fn single_ranges() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(1, 300_000);
    let digest = push_blob(&client, "a", &blob).await;
    let path = format!("/v2/a/blobs/{digest}");
    for (range, from, to) in [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 300_000),
        ("bytes=-500", 299_500, 300_000),
        ("bytes=299999-400000", 299_999, 300_000),
        ("bytes=65535-65536", 65_535, 65_537),
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 300_000),
    ] {
        let answer = ranged(&client, &path, range).await.expect(206);
        assert_eq!(answer.header("content-length"), (to - from).to_string());
        assert_eq!(
            answer.header("content-range"),
            format!("bytes {from}-{}/300000", to - 1)
        );
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert!(answer.body == blob[from..to], "{range}");
    }
    for range in ["bytes=300000-", "bytes=500-0", "bytes=-0"] {
        let answer = ranged(&client, &path, range)
            .await
            .expect_error(416, "SIZE_INVALID");
        assert_eq!(answer.header("content-range"), "bytes */300000");
    }
    for range in ["lines=1-2", "bytes=x"] {
        assert!(ranged(&client, &path, range).await.expect(200).body == blob);
    }
    let call = client
        .call(Method::GET, &path)
        .header("range", "bytes=0-1")
        .header("if-range", "\"x\"");
    call.send().await.expect(200);
    let empty = push_blob(&client, "a", b"").await;
    ranged(&client, &format!("/v2/a/blobs/{empty}"), "bytes=0-")
        .await
        .expect(416);
}

/// Guards: several ranges are sent as multipart/byteranges, in the requested number and order. Too many are 400, after
/// which clients fall back.
#[tokio::test(flavor = "multi_thread")]
async fn many_ranges() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(2, 200_000);
    let digest = push_blob(&client, "a", &blob).await;
    let path = format!("/v2/a/blobs/{digest}");
    let starts: Vec<usize> = (0..1024).map(|n| (1023 - n) * 190).collect();
    let list: Vec<String> = starts
        .iter()
        .map(|start| format!("{start}-{}", start + 99))
        .collect();
    let answer = ranged(&client, &path, &format!("bytes={}", list.join(",")))
        .await
        .expect(206);
    let boundary = answer
        .header("content-type")
        .strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.expect("a multipart answer").to_owned();
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    let mut rest = &answer.body[..];
    for start in starts {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {start}-{}/200000\r\n\r\n",
            start + 99
        );
        rest = rest
            .strip_prefix(head.as_bytes())
            .expect("the next part's head");
        rest = rest
            .strip_prefix(&blob[start..start + 100])
            .expect("the part's bytes");
    }
    assert_eq!(rest, format!("\r\n--{boundary}--\r\n").as_bytes());
    let many = format!("bytes={}", vec!["0-0"; 1025].join(","));
    ranged(&client, &path, &many)
        .await
        .expect_error(400, "SIZE_INVALID");
    ranged(&client, &path, "bytes=0-,0-,0-")
        .await
        .expect_error(400, "SIZE_INVALID");
}

/// Guards: manifests can be read in ranges, which containerd 2.1 requests.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_manifests() {
    let registry = TestRegistry::start().await;
    let client = registry.client();
    push_image(&client, "a", "latest", b"layer").await;
    let whole = client.get("/v2/a/manifests/latest").await.expect(200).body;
    let answer = ranged(&client, "/v2/a/manifests/latest", "bytes=0-")
        .await
        .expect(206);
    assert_eq!(answer.body, whole);
    assert_eq!(
        answer.header("content-range"),
        format!("bytes 0-{}/{}", whole.len() - 1, whole.len())
    );
}

/// Guards: open-ended ranges that clients abandon after one chunk leave no resources in use.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_ranges() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let registry = TestRegistry::start().await;
    let client = registry.client();
    let blob = content(3, 12 << 20);
    let digest = push_blob(&client, "a", &blob).await;
    for start in [0, 1 << 20, 11 << 20] {
        let mut stream = tokio::net::TcpStream::connect(client.address())
            .await
            .unwrap();
        let head = format!(
            "GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\nRange: bytes={start}-\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut first = vec![0; 1000];
        stream.read_exact(&mut first).await.unwrap();
        assert!(first.starts_with(b"HTTP/1.1 206"));
    }
    let answer = client
        .get(&format!("/v2/a/blobs/{digest}"))
        .await
        .expect(200);
    assert!(answer.body == blob);
}

/// Guards: a large pull by a fast client of HTTP/1.1 is sent from mapped windows, and has the content. So do ranges
/// that begin anywhere, and the same pull over HTTP/2, which maps nothing.
#[tokio::test(flavor = "multi_thread")]
async fn large_pulls_are_mapped() {
    let registry = TestRegistry::start().await;
    let (client, admin) = (registry.client(), registry.admin());
    let mapped = async || {
        let metrics = admin.get("/metrics").await.expect(200).body;
        let label = "registry_io_operations_total{class=\"foreground_read\",backend=\"mapped\"} ";
        let text = String::from_utf8(metrics.to_vec()).unwrap();
        let count = text.split_once(label).expect(label).1.lines().next();
        count.unwrap().parse::<u64>().unwrap()
    };
    let blob = content(3, 40 << 20);
    let path = format!("/v2/a/blobs/{}", push_blob(&client, "a", &blob).await);
    let call = client.call(Method::GET, &path);
    assert!(call.send_h2().await.expect(200).body == blob);
    assert_eq!(mapped().await, 0);
    assert!(client.get(&path).await.expect(200).body == blob);
    for from in [1, 70_000, 1 << 20] {
        let answer = ranged(&client, &path, &format!("bytes={from}-")).await;
        assert!(answer.expect(206).body == blob[from..]);
    }
    if mapped().await == 0 {
        let why = "this kernel or file system does not map files that are in memory";
        say::skipped("mapped windows", why);
        assert!(!say::required("TONNAGE_TEST_MAPPED"), "{why}");
    }
}
