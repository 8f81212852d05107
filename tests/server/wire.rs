//! Raw requests, for what no client library sends, and frames of HTTP/2.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The time after which a wait counts as failed. It is below the 50 s after which an HTTP/2 client that answers no ping
/// is disconnected.
pub(crate) const HANG: Duration = Duration::from_secs(30);

/// Sends `bytes`. Returns everything that the server sends until it closes; the client's half stays open.
pub(crate) async fn say(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_ref()).await.unwrap();
    rest(stream).await
}

/// Returns what the server sends from here on. A reset fails the test, because it may cost a client bytes that it has
/// not read.
pub(crate) async fn rest(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

/// Returns the beginning of an HTTP/2 connection whose streams have a window of `window` bytes (RFC 9113 sections 3.4
/// and 6.5.2).
pub(crate) fn opening(window: u32) -> Vec<u8> {
    let mut setting = vec![0, 4];
    setting.extend(window.to_be_bytes());
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [preface.to_vec(), frame(4, 0, 0, &setting)].concat()
}

/// Returns a frame of HTTP/2 (RFC 9113 section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut all = length[1..].to_vec();
    all.extend([kind, flags]);
    all.extend(stream.to_be_bytes());
    all.extend(payload);
    all
}

/// Returns a header field without compression (RFC 7541 section 6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut all = vec![0];
    for text in [name, value] {
        all.push(u8::try_from(text.len()).unwrap());
        all.extend(text.bytes());
    }
    all
}

/// Returns the headers that every HTTP/2 request has.
pub(crate) fn head(method: &str, path: &str) -> Vec<u8> {
    let fields = [
        field(":method", method),
        field(":scheme", "http"),
        field(":authority", "localhost"),
        field(":path", path),
    ];
    fields.concat()
}

/// Returns the payload of the next frame of `kind` on `stream`.
pub(crate) async fn next_frame(from: &mut TcpStream, kind: u8, stream: u32) -> Vec<u8> {
    next(from, |found, of| (found, of) == (kind, stream))
        .await
        .1
}

/// Returns the next HEADERS and their stream.
pub(crate) async fn next_head(from: &mut TcpStream) -> (u32, Vec<u8>) {
    next(from, |kind, _| kind == 1).await
}

/// Reads frames up to one that is wanted. Returns its stream and payload.
async fn next(from: &mut TcpStream, wanted: impl Fn(u8, u32) -> bool) -> (u32, Vec<u8>) {
    let reading = async {
        loop {
            let mut head = [0; 9];
            from.read_exact(&mut head).await.expect("a frame");
            let [a, b, c, kind, _, stream @ ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            from.read_exact(&mut payload).await.expect("its payload");
            let stream = u32::from_be_bytes(stream);
            if wanted(kind, stream) {
                return (stream, payload);
            }
        }
    };
    let read = tokio::time::timeout(HANG, reading).await;
    read.expect("no such frame arrived")
}
