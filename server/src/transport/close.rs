//! How a connection is closed.
//!
//! Owns: [`Close`] and [`end`], which carries it out. The lingering close itself is `linger`'s.
//! Refuses: deciding which; `supervision` does.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::task::unconstrained;

use super::linger;
use super::slots::Taken;
use super::stream::Stream;
use crate::clock::RunningClock;

/// How long an idle connection that was told to leave may take for it.
pub(super) const LEAVE_MAX: Duration = Duration::from_millis(100);
/// The answer to a head of HTTP/1.1 that did not come in time.
const LATE_HEAD: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// With care: the client may have sent more than was read when the last answer was given.
    Linger,
    /// The same, once a client whose head did not come in time is told so.
    Late,
    /// At once.
    Plainly,
    /// At once, and what the client did not take is forgotten by the kernel too.
    Reset,
}

/// Closes the stream of a connection that has ended.
pub(super) async fn end(
    mut stream: impl Stream,
    close: Close,
    place: &Taken,
    clock: &RunningClock,
) {
    if close == Close::Late {
        // Where there is no room at once, the client takes nothing anyway.
        let told = unconstrained(stream.write(LATE_HEAD)).now_or_never();
        if !matches!(told, Some(Ok(_))) {
            tracing::debug!(
                ?told,
                "a client was not told that its request came too late"
            );
        }
    }
    match close {
        Close::Linger | Close::Late => tokio::select! {
            () = linger::close(stream, clock) => {}
            () = leave(place, clock) => {}
        },
        Close::Plainly => {}
        Close::Reset => {
            if let Err(error) = stream.set_reset_on_drop() {
                tracing::debug!(%error, "an unread answer stays with the kernel for a while");
            }
        }
    }
}

/// Resolves when a connection that lingers is to end because others want its place.
async fn leave(place: &Taken, clock: &RunningClock) {
    if place.was_told() {
        clock.alarm(LEAVE_MAX).await;
    } else {
        place.told().await;
    }
}
