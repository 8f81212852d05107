//! The body of an answer, as its connection takes it.
//!
//! Owns: [`AnswerBody`], which holds its request under way until the connection has taken the last byte, and notes whether the client
//! is awaited for that, and when it last took something.
//!
//! Invariant: on HTTP/2 an answer that holds memory has its stream's task as long as it has the memory, so that ending the stream gives
//! it back. hyper ends the task with the last piece of an answer, taken or not: so the last byte is a piece of its own.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::active_requests::{Awaited, UnderWay};

/// An answer's body that holds its request under way.
#[derive(Debug)]
pub(super) struct AnswerBody<B> {
    body: B,
    request: Arc<UnderWay>,
    /// Unless more of the answer was asked for and is not there yet.
    awaited: Option<Awaited>,
    /// The last byte, once all others were given out.
    last: Option<Bytes>,
}

/// A part of an answer that does the same until it is taken.
#[derive(Debug)]
pub(super) struct AnswerData {
    bytes: Bytes,
    awaited: Awaited,
}

impl<B: Body> AnswerBody<B> {
    /// In the task of the answer's stream.
    pub(super) fn new(body: B, request: Arc<UnderWay>) -> Self {
        request.answer();
        Self {
            body,
            awaited: Some(Awaited::by(&request)),
            request,
            last: None,
        }
    }

    fn data(&mut self, mut data: impl Buf) -> AnswerData {
        let mut bytes = data.copy_to_bytes(data.remaining());
        if bytes.len() > 1 && self.body.is_end_stream() && self.request.has_stream_for_memory() {
            let last = bytes.split_off(bytes.len() - 1);
            self.last = Some(Bytes::copy_from_slice(&last));
        }
        AnswerData {
            bytes,
            awaited: Awaited::by(&self.request),
        }
    }
}

impl<B: Body + Unpin> Body for AnswerBody<B> {
    type Data = AnswerData;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<AnswerData>, B::Error>>> {
        let this = &mut *self;
        if let Some(last) = this.last.take() {
            return Poll::Ready(Some(Ok(Frame::data(this.data(last)))));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            this.awaited = None;
            return Poll::Pending;
        };
        if this.awaited.is_none() {
            // Before it counts as unread: the time until now was the server's.
            this.request.note_taken();
            this.awaited = Some(Awaited::by(&this.request));
        }
        let data = |data| this.data(data);
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.last {
            Some(_) => SizeHint::with_exact(1),
            None => self.body.size_hint(),
        }
    }
}

impl Buf for AnswerData {
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
        self.awaited.request().note_taken();
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::IpAddr;
    use std::time::Duration;

    use futures_util::{FutureExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::rt::Executor as _;
    use tokio::sync::oneshot;

    use super::super::active_requests::Requests;
    use super::super::http2_streams::StreamTasks;
    use super::super::slots::Places;
    use super::*;
    use crate::clock::{RunningClock, pass};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Guards: the time in which the server prepares a part of an answer does not count as one in which the client left it unread; the
    /// time after that does.
    #[tokio::test(start_paused = true)]
    async fn time_of_the_server_is_not_the_clients() {
        let clock = RunningClock::start();
        let places = Places::new(1, &clock);
        let place = places.take(IpAddr::from([10, 0, 0, 1])).expect("a place");
        let requests = Requests::new(Arc::new(place), &clock);
        let request = requests.begin(None);
        let (prepared, window) = oneshot::channel::<Bytes>();
        let (stream_lives, stream_ended) = oneshot::channel::<()>();
        StreamTasks.execute(async move {
            let _lives = stream_lives;
            let window = window.map(|window| window.map(Frame::data));
            let mut body = AnswerBody::new(StreamBody::new(stream::once(window)), request);
            let _unread = body.frame().await;
            pending::<()>().await;
        });
        let mut ending = tokio::spawn(async move { requests.end_unread(PATIENCE).await });
        let mut stream_ended = stream_ended.map(drop).fuse();
        pass(PATIENCE * 2).await;
        prepared
            .send(Bytes::from_static(b"window"))
            .expect("asked for");
        pass(PATIENCE / 2).await;
        assert!((&mut stream_ended).now_or_never().is_none(), "cut too soon");
        pass(PATIENCE).await;
        (&mut stream_ended)
            .now_or_never()
            .expect("it was left unread");
        assert!((&mut ending).now_or_never().is_none());
        ending.abort();
    }
}
