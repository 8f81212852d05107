//! A connection's stream that detects inactive clients.
//!
//! Owns: the time for which an answer may be left unread, which hyper does not limit; the size of reads; and the
//! records of progress by which `slots` chooses connections to evict. On HTTP/2 only heads and content count as
//! progress, and for an answer only content, because any client can send pings.
//! Refuses: limits inside a request, which `request_body` and the front ends set; the limit on unsent bytes (`unsent`);
//! closing: `close` gets the stream back after hyper has dropped it.
//!
//! Invariant: an error here ends the connection; slow progress never does.

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

use super::active_requests::ActiveRequests;
use super::close::EVICTION_TIME_MAX;
use super::connection_limits::ConnectionLimits;
use super::cork::Cork;
use super::frames::{Frames, Progress};
use super::front_end::AnswerMemory;
use super::mapped_answers::MappedAnswers;
use super::receive_buffers::{LARGE_READ_BYTES, SMALL_READ_BYTES};
use super::shared_budget::{BudgetShare, SharedBudget};
use super::slots::Slot;
use super::stream::Stream;
use super::unsent::UnsentLimit;
use crate::clock::{Alarm, RunningClock};

/// Bytes that a connection receives before its buffers may become large, if its reads fill the small ones.
const LARGE_FROM_BYTES: u64 = 256 << 10;
/// Memory of large buffers in bytes: one is filled while one is processed.
const LARGE_BUFFERS_BYTES: usize = 2 * LARGE_READ_BYTES;

/// A stream whose progress is recorded.
pub(super) struct WatchedStream<S: Stream> {
    /// `Some` until this is dropped.
    stream: Option<Take<S>>,
    /// Receives the stream when this is dropped.
    returned: Option<oneshot::Sender<S>>,
    /// Bytes read before the protocol was known.
    preread: Bytes,
    /// Bytes read since.
    received: u64,
    /// Budget for large buffers; `None` on HTTP/2, where windows have that role.
    memory: Option<Arc<SharedBudget>>,
    /// The share of it that large buffers have.
    large: Option<BudgetShare>,
    /// Bytes received at which an idle connection is next evicted for its large buffers.
    evict_at: u64,
    /// The frames of HTTP/2, received and sent.
    frames: Option<(Frames, Frames)>,
    requests: ActiveRequests,
    /// Whether the client's half of an HTTP/2 connection has ended.
    is_ended: bool,
    /// Resolves when the requests that were active then are answered.
    ended: Option<BoxFuture<'static, ()>>,
    slot: Arc<Slot>,
    unread_max: Duration,
    /// Since when there is no room to write.
    blocked_since: Option<Duration>,
    /// Whether only a flush waits for room.
    is_flush_blocked: bool,
    unsent: UnsentLimit,
    /// `None` on HTTP/2.
    cork: Option<Cork>,
    /// `None` if answers cannot be mapped.
    mapped: Option<MappedAnswers>,
    clock: RunningClock,
    /// Fires at `blocked_since + unread_max`.
    alarm: Option<Alarm>,
    /// The memory of the client's answers.
    answers: Option<Arc<dyn AnswerMemory>>,
}

impl<S: Stream> WatchedStream<S> {
    /// Wraps `stream`. The receiver gets it back when the wrapper is dropped.
    pub(super) fn new(
        stream: S,
        begun: Bytes,
        speaks_http2: bool,
        limits: &ConnectionLimits,
        requests: &ActiveRequests,
        answers: Option<Arc<dyn AnswerMemory>>,
    ) -> (Self, oneshot::Receiver<S>) {
        let slot = Arc::clone(requests.slot());
        let unsent = UnsentLimit::new(&limits.unsent, slot.peer(), &stream);
        let (give_back, returned) = oneshot::channel();
        // A stream that takes one piece at a time gets a copy of several from hyper, which is made outside its writes.
        let maps = !speaks_http2 && !stream.is_tls() && stream.is_write_vectored();
        let socket = Self {
            stream: Some(stream.take(0)),
            returned: Some(give_back),
            preread: begun,
            received: 0,
            memory: (!speaks_http2).then(|| Arc::clone(&limits.receive)),
            large: None,
            evict_at: LARGE_FROM_BYTES,
            frames: speaks_http2.then(Default::default),
            requests: requests.clone(),
            is_ended: false,
            ended: None,
            slot,
            unread_max: limits.unread_timeout,
            blocked_since: None,
            is_flush_blocked: false,
            unsent,
            mapped: answers.clone().filter(|_| maps).map(MappedAnswers::new),
            cork: (!speaks_http2).then(|| Cork::new(requests.continuation().clone())),
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

    /// Reads at most what the buffers of the connection allow.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(ended) = &mut self.ended {
            ready!(ended.poll_unpin(cx));
            self.ended = None;
        }
        // Only hyper's buffer of HTTP/1.1 grows with the size of reads.
        let most = if self.memory.is_none() || self.large.is_some() {
            LARGE_READ_BYTES
        } else {
            SMALL_READ_BYTES
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
            // hyper would treat this as the end of the connection, and drop active requests and those that it has read.
            self.requests.set_client_ended();
            self.ended = Some(self.requests.idle(EVICTION_TIME_MAX).boxed());
            return self.poll_receive(cx, buffer);
        }
        if count > 0 {
            let received = buffer.filled().get(before..).unwrap_or_default();
            let moved = match &mut self.frames {
                Some((received_frames, _)) => received_frames.follow(received),
                None => Progress::Data,
            };
            if moved > Progress::None {
                self.slot.record_progress(count);
            }
            self.slot.set_request_pending(true);
            self.received += u64::try_from(count).unwrap_or(u64::MAX);
        }
        if let Some(memory) = &self.memory
            && count == most
            && self.large.is_none()
            && self.received >= LARGE_FROM_BYTES
        {
            self.large = memory.take(self.slot.peer(), LARGE_BUFFERS_BYTES);
            if self.large.is_some() {
                self.slot.set_large_buffers();
            } else if self.received >= self.evict_at {
                self.slot.request_large_buffers();
                self.evict_at = self.received.saturating_mul(2);
            }
        }
        Poll::Ready(outcome)
    }

    /// Returns for how long there has been no room to write.
    fn pause(&self) -> Duration {
        let since = self.blocked_since;
        since.map_or(Duration::ZERO, |since| {
            self.clock.now().saturating_sub(since)
        })
    }

    /// Makes sure that the next bytes of an answer are in memory.
    fn poll_loaded(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pause = self.pause();
        let Some(mapped) = &mut self.mapped else {
            return Poll::Ready(Ok(()));
        };
        let loaded = mapped.poll_loaded(cx, pause);
        if loaded.is_pending() {
            // The client has room. It is the server that needs time.
            self.blocked_since = None;
            self.slot.set_blocked(None);
        }
        loaded
    }

    /// Runs a write to the stream.
    fn write(
        &mut self,
        write: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let stream = Pin::new(stream.get_mut());
        match &self.mapped {
            Some(mapped) => mapped.write(|| write(stream)),
            None => write(stream),
        }
    }

    fn prepare_write(&mut self, bytes: usize) {
        if let (Some(stream), Some(cork)) = (&self.stream, &mut self.cork) {
            cork.before_write(stream.get_ref(), bytes);
        }
    }

    /// Records the outcome of a write of `pieces`, and fails if the client has read nothing for too long.
    fn finish_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &outcome {
            let count = *written.as_ref().unwrap_or(&0);
            let pause = self.pause();
            self.blocked_since = None;
            self.is_flush_blocked = false;
            if let Some(stream) = &self.stream {
                self.unsent.record_written(stream.get_ref(), count, pause);
            }
            if let Some(mapped) = &self.mapped {
                mapped.set_fast(self.unsent.is_fast());
            }
            self.slot.set_blocked(None);
            self.slot.set_request_pending(false);
            self.record_written(pieces, count);
            return outcome;
        }
        ready!(self.poll_blocked(cx));
        Poll::Ready(Err(late("the client does not read its answer")))
    }

    /// Records the outcome of a flush, and fails if the client has read nothing for too long.
    fn finish_flush(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        if outcome.is_ready() {
            if let (Some(stream), Some(cork)) = (&self.stream, &mut self.cork) {
                cork.after_flush(stream.get_ref());
            }
            if std::mem::take(&mut self.is_flush_blocked) {
                self.blocked_since = None;
                self.slot.set_blocked(None);
            }
            return outcome;
        }
        // A write that has no room stays blocked when a flush below it ends.
        self.is_flush_blocked |= self.blocked_since.is_none();
        ready!(self.poll_blocked(cx));
        Poll::Ready(Err(late("the client does not read its answer")))
    }

    /// Records that there is no room to write. Ready once the client has read nothing for too long.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.blocked_since.get_or_insert_with(|| self.clock.now());
        self.slot.set_blocked(Some(since));
        let until = since.saturating_add(self.unread_max);
        let alarm = self.alarm.get_or_insert_with(|| self.clock.alarm_at(until));
        alarm.set(until);
        Pin::new(alarm).poll(cx)
    }
}

impl<S: Stream> WatchedStream<S> {
    /// Records that `count` bytes of `pieces` were written to the stream.
    fn record_written(&mut self, pieces: &[IoSlice<'_>], count: usize) {
        let moved = match &mut self.frames {
            None => Progress::Data,
            Some((_, sent_frames)) => {
                let mut left = count;
                let passed = pieces.iter().map(|piece| {
                    let taken = piece.get(..left).unwrap_or(piece);
                    left -= taken.len();
                    sent_frames.follow(taken)
                });
                passed.max().unwrap_or_default()
            }
        };
        if moved > Progress::None {
            self.slot.record_progress(count);
        }
        if moved == Progress::Data
            && let Some(answers) = &self.answers
        {
            answers.record_progress();
        }
    }
}

impl<S: Stream> Drop for WatchedStream<S> {
    fn drop(&mut self) {
        if let (Some(stream), Some(returned)) = (self.stream.take(), self.returned.take()) {
            // Without a receiver the stream is closed.
            drop(returned.send(stream.into_inner()));
        }
    }
}

fn late(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl<S: Stream> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preread.is_empty() {
            return self.poll_receive(cx, buffer);
        }
        self.slot.set_request_pending(true);
        let count = self.preread.len().min(buffer.remaining());
        buffer.put_slice(&self.preread.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for WatchedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_loaded(cx))?;
        let most = self.unsent.write_max(self.pause()).min(bytes.len());
        let bytes = bytes.get(..most).unwrap_or(bytes);
        self.prepare_write(bytes.len());
        let outcome = self.write(|stream| stream.poll_write(cx, bytes));
        self.finish_write(cx, &[IoSlice::new(bytes)], outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.unsent.write_max(self.pause()) < usize::MAX
            && let Some(first) = pieces.iter().find(|piece| !piece.is_empty())
        {
            return self.poll_write(cx, first);
        }
        ready!(self.poll_loaded(cx))?;
        self.prepare_write(pieces.iter().map(|piece| piece.len()).sum());
        let outcome = self.write(|stream| stream.poll_write_vectored(cx, pieces));
        self.finish_write(cx, pieces, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|stream| stream.get_ref().is_write_vectored())
    }

    /// Flushes. A stream over another one has bytes left if there is no room for them below.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream()?.poll_flush(cx);
        self.finish_flush(cx, flushed)
    }

    /// Ends the sending half, after what is left.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.stream()?.poll_shutdown(cx);
        self.finish_flush(cx, ended)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::{IpAddr, SocketAddr};

    use super::super::connection_limits::Http2Options;
    use super::super::slots::Slots;
    use super::*;
    use crate::clock;

    /// A stream over another one that has no room: it takes bytes, and cannot pass them on.
    struct Stuck;

    impl AsyncRead for Stuck {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl Stream for Stuck {
        fn peer(&self) -> io::Result<SocketAddr> {
            Ok(([10, 0, 0, 1], 1).into())
        }

        fn set_unsent_max(&self, _: u32) -> io::Result<()> {
            Ok(())
        }

        fn set_corked(&self, _: bool) -> io::Result<()> {
            Ok(())
        }

        fn set_reset_on_drop(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Guards: the time for which an answer may be left unread also counts if all of it is written, and its last bytes
    /// wait in a stream below, such as TLS.
    #[tokio::test(start_paused = true)]
    async fn a_flush_that_has_no_room_ends() {
        let clock = RunningClock::start();
        let unread = Duration::from_secs(10);
        let limits = ConnectionLimits::new(unread, unread, &Http2Options::default(), &clock);
        let slot = Slots::new(1, &clock).take(IpAddr::from([10, 0, 0, 1]));
        let requests = ActiveRequests::new(Arc::new(slot.unwrap()), &clock);
        let (stream, _returned) =
            WatchedStream::new(Stuck, Bytes::new(), false, &limits, &requests, None);
        let mut stream = std::pin::pin!(stream);
        let written = poll_fn(|cx| stream.as_mut().poll_write(cx, b"answer")).await;
        assert_eq!(written.unwrap(), 6);
        let mut flushed = std::pin::pin!(poll_fn(|cx| stream.as_mut().poll_flush(cx)));
        assert!(flushed.as_mut().now_or_never().is_none());
        clock::pass(unread / 2).await;
        assert!(flushed.as_mut().now_or_never().is_none());
        clock::pass(unread).await;
        let late = flushed.await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let mut ended = std::pin::pin!(poll_fn(|cx| stream.as_mut().poll_shutdown(cx)));
        let late = ended
            .as_mut()
            .now_or_never()
            .expect("late already")
            .unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
