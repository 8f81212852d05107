//! What to do with a request's body that no handler read.
//!
//! Owns: reading on for a little, so that a client that sends before it listens sees its 4xx instead of a reset.
//! Refuses: reading forever; both bytes and time are bounded.

use std::time::Duration;

use http::Version;

use super::body::RequestBody;
use crate::clock::RunningClock;
use crate::registry::Source as _;

const BYTES_MAX: usize = 8 << 20;
const TIME_MAX: Duration = Duration::from_secs(2);

/// Reads on beside the answer. HTTP/2 needs none of it: a stream is reset without harm to the others.
pub(super) fn unread(mut body: RequestBody, version: Version, clock: &RunningClock) {
    if body.is_over() || version == Version::HTTP_2 {
        return;
    }
    let clock = clock.clone();
    tokio::spawn(async move {
        let reading = async {
            let mut left = BYTES_MAX;
            while let Ok(Some(bytes)) = body.next().await {
                match left.checked_sub(bytes.len()) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
        };
        // Out of time: the connection closes, as it would have without us.
        clock.timeout(TIME_MAX, reading).await.unwrap_or_default();
    });
}
