//! The first bytes of a connection, by which its protocol is known.
//!
//! Owns: [`read`]. A client that speaks HTTP/2 begins with its preface (RFC 9113 section 3.4); one that begins differently speaks
//! HTTP/1.1. Nothing but these bytes is kept for a connection that has said less.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks, and what was read to know it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Http1(Bytes),
    Http2(Bytes),
    /// The client went without a word.
    Nothing,
}

/// Reads until the protocol is known.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Opening> {
    let (mut bytes, mut count) = (*PREFACE, 0);
    loop {
        let room = bytes.get_mut(count..).unwrap_or_default();
        match stream.read(room).await? {
            0 if count == 0 => return Ok(Opening::Nothing),
            // A client may end its side after its request.
            0 => return Ok(Opening::Http1(Bytes::copy_from_slice(begun(&bytes, count)))),
            more => count += more,
        }
        let begun = begun(&bytes, count);
        if !PREFACE.starts_with(begun) {
            return Ok(Opening::Http1(Bytes::copy_from_slice(begun)));
        }
        if count == PREFACE.len() {
            return Ok(Opening::Http2(Bytes::from_static(PREFACE)));
        }
    }
}

fn begun(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(..count).unwrap_or_default()
}
