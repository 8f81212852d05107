//! Handling of the rest of a request's body that no handler read.
//!
//! Owns: the choice between keeping the connection, for which the rest of the body is read during the answer, and
//! closing it after the answer. A closed one lingers (`linger`), so that a client that sends before it reads gets its
//! answer. On HTTP/2 a limited part of the rest is read, and then the stream is reset.
//! Refuses: reading much to keep a connection, because a new one is cheaper.

use std::time::Duration;

use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderValue, Response, Version, header};

use super::headers;
use super::request_body::RequestBody;
use crate::clock::RunningClock;

/// Most bytes that are read to keep an HTTP/1.1 connection.
const BYTES_MAX: u64 = 256 << 10;
/// Most bytes that are read of an HTTP/2 stream before it is reset.
const STREAM_BYTES_MAX: u64 = 16 << 20;
/// Longest time of that reading; then the connection is closed or the stream reset.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Drains the rest of a body whose answer is known, or makes the answer close the connection.
pub(crate) fn drain_or_close<B>(
    mut body: RequestBody,
    head: &Parts,
    clock: &RunningClock,
    answer: &mut Response<B>,
) {
    if is_complete(&mut body) {
        return;
    }
    let is_http2 = head.version >= Version::HTTP_2;
    let most = if is_http2 {
        // A reset without an error (RFC 9113 section 8.1) would be enough, but some clients that are still sending
        // treat it as the answer.
        Some(STREAM_BYTES_MAX).filter(|_| body.is_coming())
    } else {
        let rest = body.remaining().filter(|bytes| *bytes <= BYTES_MAX);
        rest.filter(|_| wants_keep_alive(head))
    };
    if let Some(most) = most {
        let clock = clock.clone();
        tokio::spawn(async move {
            let reading = read(&mut body, most);
            clock.timeout(TIME_MAX, reading).await.unwrap_or_default();
        });
    } else if !is_http2 {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
}

/// Returns whether the client wants to keep the connection (RFC 9112 section 9.3).
fn wants_keep_alive(head: &Parts) -> bool {
    let says = |wanted: &str| {
        let mut options = headers::list(&head.headers, &header::CONNECTION);
        options.any(|option| option.eq_ignore_ascii_case(wanted))
    };
    !says("close") && (head.version >= Version::HTTP_11 || says("keep-alive"))
}

async fn read(body: &mut RequestBody, most: u64) {
    let mut left = most;
    while let Ok(Some(bytes)) = body.read().await {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Returns whether all of it was read or can be read without waiting.
fn is_complete(body: &mut RequestBody) -> bool {
    if body.is_complete() {
        return true;
    }
    // The end of a body without a length is known only when it is read.
    while body.is_chunked() {
        match body.read().now_or_never() {
            Some(Ok(None)) => return true,
            Some(Ok(Some(_))) => {}
            Some(Err(_)) | None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Guards: no time is spent to keep a connection that the client wants closed.
    #[test]
    fn clients_say_whether_the_connection_is_kept() {
        let is_kept = |version, options: &[&str]| {
            let request = Request::builder().version(version);
            let request = options.iter().fold(request, |request, option| {
                request.header(header::CONNECTION, *option)
            });
            let (head, ()) = request.body(()).expect("a request").into_parts();
            wants_keep_alive(&head)
        };
        assert!(is_kept(Version::HTTP_11, &[]));
        assert!(is_kept(Version::HTTP_11, &["keep-alive", "TE"]));
        assert!(!is_kept(Version::HTTP_11, &["TE", "keep-alive , Close"]));
        assert!(is_kept(Version::HTTP_10, &["Keep-Alive"]));
        assert!(!is_kept(Version::HTTP_10, &[]));
    }
}
