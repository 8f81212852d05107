//! How a connection is closed.
//! Owns: [`Close`] and [`end`], which carries it out. The lingering close is in `linger`.
//! Refuses: choosing how, which `supervision` does.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::task::unconstrained;

use super::linger;
use super::slots::Slot;
use super::stream::Stream;
use crate::clock::RunningClock;

/// Time that an idle connection has to end after its eviction.
pub(super) const EVICTION_TIME_MAX: Duration = Duration::from_millis(100);
/// The answer to an HTTP/1.1 head that did not arrive in time.
const REQUEST_TIMEOUT_ANSWER: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// By a lingering close, because the client may have sent more than was read before the last answer.
    Linger,
    /// By a lingering close after a 408, because the head of a request did not arrive in time.
    RequestTimeout,
    /// At once.
    Immediate,
    /// At once by a reset, so that the kernel drops what the client did not read.
    Reset,
}

/// Closes the stream of a connection that has ended.
pub(super) async fn end(mut stream: impl Stream, close: Close, slot: &Slot, clock: &RunningClock) {
    if close == Close::RequestTimeout {
        // One attempt is enough: a client whose socket buffer is full does not read.
        let written = unconstrained(stream.write(REQUEST_TIMEOUT_ANSWER)).now_or_never();
        if !matches!(written, Some(Ok(_))) {
            tracing::debug!(?written, "the answer to a late request could not be sent");
        }
    }
    match close {
        Close::Linger | Close::RequestTimeout => tokio::select! {
            () = linger::close(stream, clock) => {}
            () = evicted(slot, clock) => {}
        },
        Close::Immediate => {}
        Close::Reset => {
            if let Err(error) = stream.set_reset_on_drop() {
                tracing::debug!(%error, "the connection could not be reset; the kernel keeps the unread answer for a while");
            }
        }
    }
}

/// Resolves when a lingering connection is to end because others wait for its slot.
async fn evicted(slot: &Slot, clock: &RunningClock) {
    if slot.is_evicted() {
        clock.alarm(EVICTION_TIME_MAX).await;
    } else {
        slot.evicted().await;
    }
}
