//! What to do with a request's body that no handler read.
//!
//! Owns: the choice between a connection that is kept, for which the rest of the body is read beside the answer, and one that the
//! answer closes. A closed one lingers (`linger`), so that a client that sends before it listens sees its answer.
//! Refuses: reading much for the sake of a connection; a new one is cheaper.

use std::time::Duration;

use futures_util::FutureExt as _;
use http::{HeaderValue, Response, Version, header};

use super::body::{Body, RequestBody};
use crate::clock::RunningClock;
use crate::registry::Source as _;

/// Most bytes that are read so that the connection can be kept.
const BYTES_MAX: u64 = 256 << 10;
/// How long they may take; then the connection is closed as if they had been more.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Settles what becomes of the rest of a body whose answer is known. HTTP/2 needs none of it: a stream is reset without harm to others.
pub(super) fn settle(
    mut body: RequestBody,
    version: Version,
    clock: &RunningClock,
    answer: &mut Response<Body>,
) {
    if version >= Version::HTTP_2 || is_whole(&mut body) {
        return;
    }
    if body.rest().is_some_and(|bytes| bytes <= BYTES_MAX) {
        let clock = clock.clone();
        tokio::spawn(async move {
            let reading = async { while let Ok(Some(_)) = body.next().await {} };
            clock.timeout(TIME_MAX, reading).await.unwrap_or_default();
        });
        return;
    }
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
}

/// Whether all of it was read, or is here to be read.
fn is_whole(body: &mut RequestBody) -> bool {
    if body.is_over() {
        return true;
    }
    // The end of a body without a length shows only where it is read.
    while body.is_chunked() {
        match body.next().now_or_never() {
            Some(Ok(None)) => return true,
            Some(Ok(Some(_))) => {}
            Some(Err(_)) | None => return false,
        }
    }
    false
}
