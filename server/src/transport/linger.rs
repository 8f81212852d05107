//! The lingering close (RFC 9112 section 9.6).
//!
//! Owns: [`close`]. A client may still be sending when its answer is already known. If the socket is closed then, the
//! kernel answers the rest with a reset. The reset makes the client lose an answer that it has not read yet.
//! Refuses: unlimited reading; bytes, pauses and time are limited, and received bytes are discarded.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, ReadBuf};

use super::stream::Stream;
use crate::clock::RunningClock;

/// Longest time that a client may continue to send.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Longest pause of the client.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Most bytes that are read before the connection is closed.
const BYTES_MAX: usize = 8 << 30;
/// Bytes of one read. The buffer is on the stack of one call, so that a lingering connection holds no memory.
const READ_BYTES: usize = 16 << 10;
/// Reads before the task yields.
const READS_IN_A_ROW: usize = 16;

/// Ends the sending half, and reads until the client has ended its half too.
pub(super) async fn close(mut stream: impl Stream, clock: &RunningClock) {
    let closing = async {
        // An error says that the client has gone and needs no answer. A stream over another one first sends what it
        // has left.
        if stream.shutdown().await.is_ok() {
            discard(&mut stream, clock).await;
        }
    };
    if clock.timeout(TIME_MAX, closing).await.is_err() {
        tracing::debug!("a client continued to send after its answer");
    }
}

/// Discards what the client sends, until it ends its half, pauses for too long, or sends too much.
async fn discard(stream: &mut impl Stream, clock: &RunningClock) {
    let mut left = BYTES_MAX;
    loop {
        let reading = poll_fn(|cx| poll_discard(stream, cx));
        match clock.timeout(SILENCE_MAX, reading).await {
            Ok(Ok(bytes @ 1..)) => match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            },
            Ok(Ok(0) | Err(_)) | Err(_) => return,
        }
    }
}

/// Discards what can be read now. Returns the number of bytes; 0 if the client has ended its half.
fn poll_discard(stream: &mut impl Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut count = 0;
    for _ in 0..READS_IN_A_ROW {
        let mut buffer = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut buffer);
        match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => break,
            Poll::Ready(Ok(())) => count += buffer.filled().len(),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if count == 0 => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Ok(count))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    /// Measures a close whose client sends a byte every `pause`.
    async fn closing(pause: Duration) -> Duration {
        let (stream, mut client) = duplex(1);
        let clock = RunningClock::start();
        let sending = async {
            while client.write_all(b"x").await.is_ok() {
                sleep(pause).await;
            }
            std::future::pending::<()>().await;
        };
        let began = Instant::now();
        tokio::select! {
            ended = timeout(TIME_MAX * 10, close(stream, &clock)) => ended.expect("it ends"),
            () = sending => {}
        }
        began.elapsed()
    }

    /// Guards: RFC 9112 section 9.6: bytes that a client sends after its answer are read for a limited time, and a
    /// pause ends it.
    #[tokio::test(start_paused = true)]
    async fn reading_on_is_bounded() {
        let second = Duration::from_secs(1);
        let talking = closing(second).await;
        assert!(
            talking >= TIME_MAX && talking < TIME_MAX + second,
            "{talking:?}"
        );
        let silent = closing(TIME_MAX).await;
        assert!(
            silent >= SILENCE_MAX && silent < SILENCE_MAX + second,
            "{silent:?}"
        );
    }
}
