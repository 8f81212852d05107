//! The requests of one connection.
//!
//! Owns: [`Requests`], how many are under way, and [`Counted`] bodies. A request is under way from its head until the connection has
//! taken the last byte of the answer: hyper drops the body before that. Meanwhile either the server works on it or the client is awaited
//! ([`Awaited`]): to send more of its body, or to take more of the answer.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;

use super::heads::HeldHead;
use super::places::Taken;
use crate::clock::RunningClock;

/// How many requests are under way. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    count: watch::Sender<usize>,
    place: Arc<Taken>,
}

/// A request under way, until it drops.
#[derive(Debug)]
pub(super) struct UnderWay {
    requests: Requests,
    /// How many [`Awaited`] there are.
    awaits: AtomicUsize,
    #[expect(dead_code, reason = "held for its drop")]
    head: Option<HeldHead>,
}

/// The client is awaited, until it drops.
#[derive(Debug)]
pub(super) struct Awaited(Arc<UnderWay>);

impl Requests {
    pub(super) fn new(place: Arc<Taken>) -> Self {
        Self {
            count: watch::Sender::new(0),
            place,
        }
    }

    pub(super) fn begin(&self, head: Option<HeldHead>) -> UnderWay {
        self.count.send_modify(|count| {
            *count += 1;
            self.place.set_idle(false);
        });
        self.place.work_begins();
        UnderWay {
            requests: self.clone(),
            awaits: AtomicUsize::new(0),
            head,
        }
    }

    pub(super) fn are_under_way(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Resolves once there was none for `patience`.
    pub(super) fn idle(
        &self,
        clock: &RunningClock,
        patience: Duration,
    ) -> impl Future<Output = ()> + use<> {
        let (clock, mut count) = (clock.clone(), self.count.subscribe());
        async move {
            loop {
                if count.wait_for(|count| *count == 0).await.is_err() {
                    return;
                }
                if clock.timeout(patience, count.changed()).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Awaited {
    pub(super) fn by(under_way: &Arc<UnderWay>) -> Self {
        if under_way.awaits.fetch_add(1, Ordering::Relaxed) == 0 {
            under_way.requests.place.work_ends();
        }
        Self(Arc::clone(under_way))
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if self.0.awaits.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.requests.place.work_begins();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Requests { count, place } = &self.requests;
        place.work_ends();
        count.send_modify(|count| {
            *count -= 1;
            if *count == 0 {
                place.set_idle(true);
            }
        });
    }
}

/// An answer's body that holds its request under way.
#[derive(Debug)]
pub(super) struct Counted<B> {
    body: B,
    under_way: Arc<UnderWay>,
    /// Unless more of the answer was asked for and is not there yet.
    awaited: Option<Awaited>,
}

/// A part of an answer that does the same until it is taken.
#[derive(Debug)]
pub(super) struct CountedData<D> {
    data: D,
    #[expect(dead_code, reason = "held for its drop")]
    awaited: Awaited,
}

impl<B> Counted<B> {
    pub(super) fn new(body: B, under_way: Arc<UnderWay>) -> Self {
        Self {
            body,
            awaited: Some(Awaited::by(&under_way)),
            under_way,
        }
    }
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = CountedData<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, B::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            self.awaited = None;
            return Poll::Pending;
        };
        let counted = |data| CountedData {
            data,
            awaited: Awaited::by(&self.under_way),
        };
        let frame = frame.map(|frame| frame.map(|frame| frame.map_data(counted)));
        if self.awaited.is_none() {
            self.awaited = Some(Awaited::by(&self.under_way));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<D: Buf> Buf for CountedData<D> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(pieces)
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }
}
