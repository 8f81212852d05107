//! Detection of a connection's protocol.
//!
//! Owns: [`detect`]. A client of HTTP/2 begins with its preface (RFC 9113 section 3.4); any other beginning is
//! HTTP/1.1. Until then a connection holds only these bytes.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol of a connection, with the bytes that were read to detect it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1(Bytes),
    Http2(Bytes),
    /// The client closed without sending anything.
    Closed,
}

/// Reads until the protocol is known.
pub(super) async fn detect(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Protocol> {
    let (mut bytes, mut count) = (*PREFACE, 0);
    loop {
        let room = bytes.get_mut(count..).unwrap_or_default();
        match stream.read(room).await? {
            0 if count == 0 => return Ok(Protocol::Closed),
            // A client may end its half after its request.
            0 => {
                return Ok(Protocol::Http1(Bytes::copy_from_slice(begun(
                    &bytes, count,
                ))));
            }
            more => count += more,
        }
        let begun = begun(&bytes, count);
        if !PREFACE.starts_with(begun) {
            return Ok(Protocol::Http1(Bytes::copy_from_slice(begun)));
        }
        if count == PREFACE.len() {
            return Ok(Protocol::Http2(Bytes::from_static(PREFACE)));
        }
    }
}

fn begun(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(..count).unwrap_or_default()
}
