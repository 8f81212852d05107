//! The requests of one connection.
//!
//! Owns: [`Requests`], how many are under way, from their head to the last byte of the answer, and [`Counted`] bodies.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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
    #[expect(dead_code, reason = "held for its drop")]
    head: Option<HeldHead>,
}

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
        let requests = self.clone();
        UnderWay { requests, head }
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

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Requests { count, place } = &self.requests;
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
    pub(super) body: B,
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) under_way: UnderWay,
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
