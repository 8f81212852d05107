//! The body of an answer that tracks how its connection reads it.
//!
//! Owns: [`TrackedBody`], which keeps its request active until the connection has read the last byte. It records
//! whether the server waits for the client to read more, and when the client last did. [`piece_max`], how long the
//! pieces are that hyper gets.
//!
//! Invariant: on HTTP/2 an answer that holds memory keeps the task of its stream while it holds the memory, so
//! resetting the stream releases it. hyper ends the task with the last piece of an answer, even if it is unread. So the
//! last byte is a separate piece.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::active_requests::{ActiveRequest, ClientWait};

/// Most bytes of a record of TLS (RFC 8446 section 5.1), and of a frame of HTTP/2 to a client that allows no more than
/// it must (RFC 9113 section 4.2).
const RECORD_BYTES: usize = 1 << 14;
/// The head of a frame of HTTP/2 (RFC 9113 section 4.1).
const FRAME_HEAD_BYTES: usize = 9;

/// Returns the most bytes of a piece. On HTTP/2 each piece is a frame, and over TLS a frame should fill one record: one
/// of 2^14 bytes would need a second record for its last 9 bytes, which costs a client as many calls as the first.
pub(super) fn piece_max(speaks_http2: bool, is_tls: bool) -> usize {
    if speaks_http2 && is_tls {
        RECORD_BYTES - FRAME_HEAD_BYTES
    } else {
        usize::MAX
    }
}

/// An answer's body that keeps its request active.
#[derive(Debug)]
pub(super) struct TrackedBody<B> {
    body: B,
    request: Arc<ActiveRequest>,
    /// `None` while the connection has polled for more that is not ready yet, and after the last piece.
    client_wait: Option<ClientWait>,
    /// Most bytes of a piece.
    piece_max: usize,
    /// What the body has returned and the connection has not.
    rest: Bytes,
}

/// A part of an answer that keeps its request active until the connection has read it.
#[derive(Debug)]
pub(super) struct TrackedData {
    bytes: Bytes,
    client_wait: ClientWait,
}

impl<B: Body> TrackedBody<B> {
    /// Wraps `body`. Call it in the task of the answer's stream.
    pub(super) fn new(body: B, request: Arc<ActiveRequest>, piece_max: usize) -> Self {
        request.begin_answer();
        Self {
            body,
            client_wait: Some(ClientWait::begin(&request)),
            request,
            piece_max,
            rest: Bytes::new(),
        }
    }

    /// Takes the next piece of `rest`.
    fn piece(&mut self) -> TrackedData {
        let is_end = self.body.is_end_stream();
        let keeps_last = is_end && self.rest.len() > 1 && self.request.has_kept_stream();
        let most = self.rest.len() - usize::from(keeps_last);
        let bytes = self.rest.split_to(most.min(self.piece_max));
        if keeps_last && self.rest.len() == 1 {
            // Without the memory of the others.
            self.rest = Bytes::copy_from_slice(&self.rest);
        }
        // After the last piece the body waits for nothing more.
        let is_last = is_end && self.rest.is_empty();
        let own = self.client_wait.take_if(|_| is_last);
        self.request.set_continues(!is_last);
        TrackedData {
            bytes,
            client_wait: own.unwrap_or_else(|| ClientWait::begin(&self.request)),
        }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = TrackedData;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<TrackedData>, B::Error>>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(this.piece()))));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            this.client_wait = None;
            this.request.set_continues(false);
            return Poll::Pending;
        };
        if frame.is_some() && this.client_wait.is_none() {
            // Recorded before it counts as unread, because the server needed the time until now.
            this.request.record_taken();
            this.client_wait = Some(ClientWait::begin(&this.request));
        }
        this.request.set_continues(false);
        let data = |mut data: B::Data| {
            this.rest = data.copy_to_bytes(data.remaining());
            this.piece()
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() {
            return self.body.size_hint();
        }
        let mut hint = SizeHint::new();
        hint.set_lower(u64::try_from(self.rest.len()).unwrap_or(u64::MAX));
        hint
    }
}

impl<B> Drop for TrackedBody<B> {
    fn drop(&mut self) {
        self.request.set_continues(false);
    }
}

impl Buf for TrackedData {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(pieces)
    }

    fn advance(&mut self, count: usize) {
        self.client_wait.request().record_taken();
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;
    use std::net::IpAddr;
    use std::time::Duration;

    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::rt::Executor as _;
    use tokio::sync::oneshot;

    use super::super::active_requests::ActiveRequests;
    use super::super::http2_streams::StreamExecutor;
    use super::super::slots::Slots;
    use super::*;
    use crate::clock::{RunningClock, pass};

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Guards: an answer continues at once after a part that is not its last, until its next part has to be waited for.
    #[tokio::test(start_paused = true)]
    async fn an_answer_continues_until_it_waits_or_ends() {
        let clock = RunningClock::start();
        let slot = Slots::new(1, &clock).take(IpAddr::from([10, 0, 0, 1]));
        let requests = ActiveRequests::new(Arc::new(slot.expect("a slot")), &clock);
        let (parts, mut received) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let parts_of_body = stream::poll_fn(move |cx| received.poll_recv(cx));
        let parts_of_body = parts_of_body.map(|part| Ok::<_, Infallible>(Frame::data(part)));
        let mut body = TrackedBody::new(
            StreamBody::new(parts_of_body),
            requests.begin(None),
            usize::MAX,
        );
        let mut next = || body.frame().now_or_never().flatten().map(drop);
        parts.send(Bytes::from_static(b"part")).expect("open");
        next().expect("it is there");
        assert!(requests.continuation().continues());
        assert!(next().is_none(), "none is there");
        assert!(!requests.continuation().continues());
        parts.send(Bytes::from_static(b"last")).expect("open");
        next().expect("it is there");
        assert!(requests.continuation().continues());
        drop(parts);
        assert!(next().is_none(), "the end");
        assert!(!requests.continuation().continues());
    }

    /// Guards: over TLS each frame of HTTP/2 fits into one record, and no byte is lost or returned twice.
    #[tokio::test]
    async fn a_frame_fits_into_one_record() {
        let clock = RunningClock::start();
        let slot = Slots::new(1, &clock).take(IpAddr::from([10, 0, 0, 1]));
        let requests = ActiveRequests::new(Arc::new(slot.expect("a slot")), &clock);
        let content: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let body = http_body_util::Full::new(Bytes::from(content.clone()));
        let most = piece_max(true, true);
        let mut body = TrackedBody::new(body, requests.begin(None), most);
        let mut lengths = Vec::new();
        let mut received = Vec::new();
        while let Some(piece) = body.frame().await {
            let piece = piece.expect("a piece").into_data().expect("data");
            lengths.push(piece.remaining());
            received.extend_from_slice(piece.chunk());
        }
        assert!(body.is_end_stream());
        assert_eq!(lengths, [[16_375; 6].as_slice(), &[1_750]].concat());
        assert_eq!(received, content);
    }

    /// Guards: the last byte of an answer that keeps its stream is a piece of its own, however long the pieces are.
    #[tokio::test]
    async fn the_last_byte_of_a_kept_stream_is_apart() {
        let clock = RunningClock::start();
        let slot = Slots::new(1, &clock).take(IpAddr::from([10, 0, 0, 1]));
        let requests = ActiveRequests::new(Arc::new(slot.expect("a slot")), &clock);
        for (length, expected) in [
            (16_375, &[16_374, 1][..]),
            (16_376, &[16_375, 1]),
            (16_377, &[16_375, 1, 1]),
        ] {
            let request = requests.begin(None);
            request.keep_stream();
            let (told, lengths) = oneshot::channel();
            StreamExecutor.execute(async move {
                let body = http_body_util::Full::new(Bytes::from(vec![0; length]));
                let mut body = TrackedBody::new(body, request, piece_max(true, true));
                let mut lengths = Vec::new();
                while let Some(Ok(piece)) = body.frame().await {
                    lengths.push(piece.into_data().map_or(0, |data| data.remaining()));
                }
                drop(told.send(lengths));
            });
            assert_eq!(lengths.await.expect("all pieces"), expected);
        }
    }

    /// Guards: the time in which the server prepares a part of an answer does not count as unread; the time after that
    /// does.
    #[tokio::test(start_paused = true)]
    async fn time_of_the_server_is_not_the_clients() {
        let clock = RunningClock::start();
        let slots = Slots::new(1, &clock);
        let slot = slots.take(IpAddr::from([10, 0, 0, 1])).expect("a slot");
        let requests = ActiveRequests::new(Arc::new(slot), &clock);
        let request = requests.begin(None);
        let (prepared, window) = oneshot::channel::<Bytes>();
        let (stream_lives, stream_ended) = oneshot::channel::<()>();
        StreamExecutor.execute(async move {
            let _lives = stream_lives;
            let window = window.map(|window| window.map(Frame::data));
            let mut body =
                TrackedBody::new(StreamBody::new(stream::once(window)), request, usize::MAX);
            let _unread = body.frame().await;
            pending::<()>().await;
        });
        let mut ending = tokio::spawn(async move { requests.reset_unread_streams(TIMEOUT).await });
        let mut stream_ended = stream_ended.map(drop).fuse();
        pass(TIMEOUT * 2).await;
        prepared
            .send(Bytes::from_static(b"window"))
            .expect("asked for");
        pass(TIMEOUT / 2).await;
        assert!((&mut stream_ended).now_or_never().is_none(), "cut too soon");
        pass(TIMEOUT).await;
        (&mut stream_ended)
            .now_or_never()
            .expect("it was left unread");
        assert!((&mut ending).now_or_never().is_none());
        ending.abort();
    }
}
