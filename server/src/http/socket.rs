//! A connection's socket, watched for clients that hold it and do nothing.
//!
//! Owns: the time that a client has for its first bytes, and the time that it may leave an answer unread. hyper watches
//! neither: its header timeout begins once it knows the protocol, and it waits for room to write without end, while the
//! answer holds buffers of the read budget that all pulls share.
//! Refuses: everything inside a request; `server` and `body` bound that. Closing it with care, which is `linger`'s: it gets the
//! stream back once hyper is done with it.
//!
//! Invariant: an error here ends the connection; progress, however slow, never does.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::clock::{Alarm, RunningClock};
use crate::registry::ports::ReadAccount;

/// Bytes after which the protocol is known: the length of HTTP/2's preface.
const OPENING_BYTES: usize = 24;

/// A socket under watch.
#[derive(Debug)]
pub(super) struct Socket {
    /// There until the socket drops.
    stream: Option<TcpStream>,
    /// Where the stream goes then.
    back: Option<oneshot::Sender<TcpStream>>,
    /// Bytes still missing from the client's opening, and when patience for them ends.
    opening: Option<(usize, Alarm)>,
    unread_max: Duration,
    /// Since when there is no room to write.
    full_since: Option<Duration>,
    clock: RunningClock,
    /// Fires at `full_since + unread_max`.
    alarm: Option<Alarm>,
    /// Whose answers these are.
    account: Option<Arc<dyn ReadAccount>>,
}

impl Socket {
    /// The socket, and what gives the stream back after it dropped.
    pub(super) fn new(
        stream: TcpStream,
        clock: &RunningClock,
        opening_max: Duration,
        unread_max: Duration,
        account: Option<Arc<dyn ReadAccount>>,
    ) -> (Self, oneshot::Receiver<TcpStream>) {
        let (back, returned) = oneshot::channel();
        let socket = Self {
            stream: Some(stream),
            back: Some(back),
            opening: Some((OPENING_BYTES, clock.alarm(opening_max))),
            unread_max,
            full_since: None,
            clock: clock.clone(),
            alarm: None,
            account,
        };
        (socket, returned)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.stream.as_mut().map(Pin::new);
        stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    /// Passes on what a write came to, and gives up on a client that reads nothing.
    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            // Whoever is answered has said enough.
            self.opening = None;
            self.full_since = None;
            if let Some(account) = &self.account {
                account.progressed();
            }
            return outcome;
        }
        let since = *self.full_since.get_or_insert_with(|| self.clock.now());
        let until = since.saturating_add(self.unread_max);
        let alarm = self.alarm.get_or_insert_with(|| self.clock.alarm_at(until));
        alarm.set(until);
        ready!(Pin::new(alarm).poll(cx));
        Poll::Ready(Err(late("the client does not read its answer")))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            // Nobody may want it any more; then it closes.
            drop(back.send(stream));
        }
    }
}

fn late(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let outcome = this.stream()?.poll_read(cx, buffer);
        if let Some((missing, patience)) = &mut this.opening {
            *missing = missing.saturating_sub(buffer.filled().len() - before);
            if *missing == 0 {
                this.opening = None;
            } else if outcome.is_pending() {
                ready!(Pin::new(patience).poll(cx));
                return Poll::Ready(Err(late("the client says nothing")));
            }
        }
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.stream()?.poll_write(cx, bytes);
        self.watched(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.stream()?.poll_write_vectored(cx, pieces);
        self.watched(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}
