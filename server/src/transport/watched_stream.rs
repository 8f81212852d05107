//! A connection's socket, watched for clients that hold it and do nothing.
//!
//! Owns: the time that it may leave an answer unread, which hyper does not watch: it waits for room to write without end; how much
//! is read at once; and the notes of when something moved, by which connections are chosen that end for others. On HTTP/2 only heads and
//! content count, and for an answer only content: pings would make any client look busy.
//! Refuses: everything inside a request, which `request_body` and the front ends bound. How much the kernel takes, which is `unsent`'s. Closing it with
//! care, which is `linger`'s: it gets the stream back once hyper is done with it.
//!
//! Invariant: an error here ends the connection; progress, however slow, never does.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};
use tokio::sync::oneshot;

use super::active_requests::Requests;
use super::close::LEAVE_MAX;
use super::connection_limits::ConnectionLimits;
use super::frames::{Frames, Moved};
use super::front_end::AnswerMemory;
use super::receive_buffers::{NARROW_READ_BYTES, WIDE_READ_BYTES};
use super::shared_budget::{Share, SharedBytes};
use super::slots::Taken;
use super::stream::Stream;
use super::unsent::Unsent;
use crate::clock::{Alarm, RunningClock};

/// Bytes of a connection after which its reads may be large, if they fill what they may take.
const WIDE_FROM_BYTES: u64 = 256 << 10;
/// What a connection's buffers take once its reads are large: one being filled, one being taken in.
const WIDE_BUFFERS_BYTES: usize = 2 * WIDE_READ_BYTES;

/// A socket under watch.
pub(super) struct Socket<S: Stream> {
    /// There until the socket drops.
    stream: Option<Take<S>>,
    /// Where the stream goes then.
    back: Option<oneshot::Sender<S>>,
    /// Read before the protocol was known.
    begun: Bytes,
    /// Bytes read since, and a large part of the memory for them; of HTTP/1.1.
    received: u64,
    memory: Option<Arc<SharedBytes>>,
    wide: Option<Share>,
    /// Of how many bytes on idle connections are asked for theirs.
    wanted_at: u64,
    /// Of HTTP/2: what comes and what goes.
    frames: Option<(Frames, Frames)>,
    requests: Requests,
    /// Whether the client's side of a connection of HTTP/2 has ended.
    is_ended: bool,
    /// Resolves when the requests that were under way then are answered.
    ended: Option<BoxFuture<'static, ()>>,
    place: Arc<Taken>,
    unread_max: Duration,
    /// Since when there is no room to write.
    full_since: Option<Duration>,
    unsent: Unsent,
    clock: RunningClock,
    /// Fires at `full_since + unread_max`.
    alarm: Option<Alarm>,
    /// The memory of the client's answers.
    answers: Option<Arc<dyn AnswerMemory>>,
}

impl<S: Stream> Socket<S> {
    /// The socket, and what gives the stream back after it dropped.
    pub(super) fn new(
        stream: S,
        begun: Bytes,
        speaks_http2: bool,
        limits: &ConnectionLimits,
        requests: &Requests,
        answers: Option<Arc<dyn AnswerMemory>>,
    ) -> (Self, oneshot::Receiver<S>) {
        let place = Arc::clone(requests.place());
        let unsent = Unsent::new(&limits.unsent, place.peer(), &stream);
        let (back, returned) = oneshot::channel();
        let socket = Self {
            stream: Some(stream.take(0)),
            back: Some(back),
            begun,
            received: 0,
            memory: (!speaks_http2).then(|| Arc::clone(&limits.receive)),
            wide: None,
            wanted_at: WIDE_FROM_BYTES,
            frames: speaks_http2.then(Default::default),
            requests: requests.clone(),
            is_ended: false,
            ended: None,
            place,
            unread_max: limits.unread_timeout,
            full_since: None,
            unsent,
            clock: limits.clock.clone(),
            alarm: None,
            answers,
        };
        (socket, returned)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        let stream = self.stream.as_mut();
        let stream = stream.map(|stream| Pin::new(stream.get_mut()));
        stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    /// Reads what one read may take.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(ended) = &mut self.ended {
            ready!(ended.poll_unpin(cx));
            self.ended = None;
        }
        // Only HTTP/1.1 keeps a buffer that grows with what one read brings.
        let most = if self.memory.is_none() || self.wide.is_some() {
            WIDE_READ_BYTES
        } else {
            NARROW_READ_BYTES
        };
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let before = buffer.filled().len();
        stream.set_limit(u64::try_from(most).unwrap_or(u64::MAX));
        let outcome = ready!(Pin::new(stream).poll_read(cx, buffer));
        let count = buffer.filled().len() - before;
        let is_end = count == 0 && buffer.remaining() > 0 && outcome.is_ok();
        if is_end && self.frames.is_some() && !std::mem::replace(&mut self.is_ended, true) {
            // hyper takes this end for the connection's, and drops what is under way, or what it has read and not begun yet.
            self.requests.set_client_ended();
            self.ended = Some(self.requests.idle(LEAVE_MAX).boxed());
            return self.poll_receive(cx, buffer);
        }
        if count > 0 {
            let received = buffer.filled().get(before..).unwrap_or_default();
            let moved = match &mut self.frames {
                Some((coming, _)) => coming.pass(received),
                None => Moved::Data,
            };
            if moved > Moved::Nothing {
                self.place.moved(count);
            }
            self.place.set_asked(true);
            self.received += u64::try_from(count).unwrap_or(u64::MAX);
        }
        if let Some(memory) = &self.memory
            && count == most
            && self.wide.is_none()
            && self.received >= WIDE_FROM_BYTES
        {
            self.wide = memory.take(self.place.peer(), WIDE_BUFFERS_BYTES);
            if self.wide.is_some() {
                self.place.set_wide();
            } else if self.received >= self.wanted_at {
                self.place.want_wide();
                self.wanted_at = self.received.saturating_mul(2);
            }
        }
        Poll::Ready(outcome)
    }

    /// How long there has been no room to write.
    fn pause(&self) -> Duration {
        let since = self.full_since;
        since.map_or(Duration::ZERO, |since| {
            self.clock.now().saturating_sub(since)
        })
    }

    /// Passes on what a write of `pieces` came to, and gives up on a client that reads nothing.
    fn watched(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &outcome {
            let count = *written.as_ref().unwrap_or(&0);
            let pause = self.pause();
            self.full_since = None;
            if let Some(stream) = &self.stream {
                self.unsent.taken(stream.get_ref(), count, pause);
            }
            self.place.set_blocked(None);
            self.place.set_asked(false);
            self.note_written(pieces, count);
            return outcome;
        }
        let since = *self.full_since.get_or_insert_with(|| self.clock.now());
        self.place.set_blocked(Some(since));
        let until = since.saturating_add(self.unread_max);
        let alarm = self.alarm.get_or_insert_with(|| self.clock.alarm_at(until));
        alarm.set(until);
        ready!(Pin::new(alarm).poll(cx));
        Poll::Ready(Err(late("the client does not read its answer")))
    }
}

impl<S: Stream> Socket<S> {
    /// Notes that the client took `count` bytes of `pieces`.
    fn note_written(&mut self, pieces: &[IoSlice<'_>], count: usize) {
        let moved = match &mut self.frames {
            None => Moved::Data,
            Some((_, going)) => {
                let mut left = count;
                let passed = pieces.iter().map(|piece| {
                    let taken = piece.get(..left).unwrap_or(piece);
                    left -= taken.len();
                    going.pass(taken)
                });
                passed.max().unwrap_or_default()
            }
        };
        if moved > Moved::Nothing {
            self.place.moved(count);
        }
        if moved == Moved::Data
            && let Some(answers) = &self.answers
        {
            answers.progressed();
        }
    }
}

impl<S: Stream> Drop for Socket<S> {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            // Without a receiver it closes.
            drop(back.send(stream.into_inner()));
        }
    }
}

fn late(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl<S: Stream> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begun.is_empty() {
            return self.poll_receive(cx, buffer);
        }
        self.place.set_asked(true);
        let count = self.begun.len().min(buffer.remaining());
        buffer.put_slice(&self.begun.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.unsent.most(self.pause()).min(bytes.len());
        let bytes = bytes.get(..most).unwrap_or(bytes);
        let outcome = self.stream()?.poll_write(cx, bytes);
        self.watched(cx, &[IoSlice::new(bytes)], outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.unsent.most(self.pause()) < usize::MAX
            && let Some(first) = pieces.iter().find(|piece| !piece.is_empty())
        {
            return self.poll_write(cx, first);
        }
        let outcome = self.stream()?.poll_write_vectored(cx, pieces);
        self.watched(cx, pieces, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|stream| stream.get_ref().is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}
