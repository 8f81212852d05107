//! A server that is stopped (SIGSTOP) for longer than its timeouts.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::serving::{Serving, send};

/// All timeouts of clients.
const LIMITS: [&str; 8] = [
    "--timeouts-header",
    "2s",
    "--timeouts-body-idle",
    "2s",
    "--timeouts-manifest",
    "2s",
    "--timeouts-unread",
    "2s",
];
/// Longer than each of them.
const STOP: Duration = Duration::from_secs(4);
/// The SHA-256 of 16 MiB of zeros.
const ZEROS: &str = "sha256:080acf35a507ac9849cfcba47dc2ad83e01b75663a516279c8b9d243b719643e";
/// More than the kernel buffers for a client that does not read.
const LENGTH: usize = 16 << 20;

/// Opens a connection and sends `request`.
fn asked(address: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Opens a connection with a request whose body of `announced` bytes the server waits for.
fn half_sent(address: &str, line: &str, announced: usize) -> TcpStream {
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {announced}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    let mut stream = asked(address, &head);
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

/// Sends `more`, and returns what arrives until the connection ends.
fn ended(mut stream: TcpStream, more: &str) -> Vec<u8> {
    stream.write_all(more.as_bytes()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// Guards: timeouts of clients count only time in which the server ran: a push, a manifest, a pull and an idle
/// connection survive a stop longer than every timeout.
#[test]
fn clients_of_a_stopped_server_are_not_late() {
    let directory = tempfile::tempdir().unwrap();
    let server = Serving::start(directory.path(), &LIMITS);
    let line = format!("POST /v2/a/blobs/uploads/?digest={ZEROS}");
    let octets = "application/octet-stream";
    let (status, answer) = send(&server.url, &line, octets, &vec![0; LENGTH]);
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
    let address = server.url.trim_start_matches("http://");
    let ping = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let pull =
        format!("GET /v2/a/blobs/{ZEROS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");

    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let push = format!("POST /v2/a/blobs/uploads/?digest=sha256:{empty}");
    let push = half_sent(address, &push, 5);
    let manifest = half_sent(address, "PUT /v2/a/manifests/t", 5);
    let pull = asked(address, &pull);
    let silent = asked(address, "");
    server.signal("-STOP");
    std::thread::sleep(STOP);
    server.signal("-CONT");

    let answers = [
        (
            "push",
            ended(push, "12345"),
            "HTTP/1.1 400",
            "DIGEST_INVALID",
        ),
        (
            "manifest",
            ended(manifest, "12345"),
            "HTTP/1.1 400",
            "MANIFEST_INVALID",
        ),
        ("silent", ended(silent, ping), "HTTP/1.1 200", "{}"),
    ];
    for (who, answer, status, code) in answers {
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.starts_with(status) && text.contains(code),
            "{who}: {text}"
        );
    }
    let pulled = ended(pull, "");
    assert!(pulled.len() > LENGTH, "{} bytes of the pull", pulled.len());
}
