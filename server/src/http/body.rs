//! Bodies, both ways.
//!
//! Owns: [`Body`], which hands verified windows to the connection as they are, and [`RequestBody`].
//! Refuses: copying; ending an answer early as if it were whole.
//!
//! Invariant: an answer's body has exactly the bytes that its Content-Length says, or fails, which makes the
//! connection break off.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use futures_util::future::OptionFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::requests::{Awaited, UnderWay};
use crate::clock::RunningClock;
use crate::registry::ports::{HeldMemory, Windows};
use crate::registry::{Error, Result, Source};
use crate::telemetry::{Metrics, Outcome, Pulled};

/// Shorter pieces of a request's body are copied: they would keep the whole buffer that they were read into.
const COPIED_BYTES: usize = 16 << 10;

/// An answer's body.
pub(crate) struct Body {
    content: Content,
    remaining: u64,
}

enum Content {
    Whole(Bytes),
    Windows {
        first: Option<Bytes>,
        rest: Windows,
        transfer: Transfer,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes to go)", self.remaining)
    }
}

/// An answer in memory.
struct HeldAnswer {
    bytes: Bytes,
    // Held for its drop.
    _memory: Box<dyn HeldMemory>,
}

impl AsRef<[u8]> for HeldAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Counts a transfer once, by how it ended.
struct Transfer {
    metrics: Arc<Metrics>,
    kind: Pulled,
    ended: bool,
    span: tracing::Span,
}

impl Transfer {
    /// Counts it, the first time.
    fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.ended, true) {
            self.metrics.pulled(self.kind, outcome);
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // Dropped before its end without a fault of ours: the client went away.
        self.end(Outcome::Client);
    }
}

impl Body {
    pub(super) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub(super) fn full(bytes: Bytes) -> Self {
        Self {
            remaining: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            content: Content::Whole(bytes),
        }
    }

    /// Keeps `memory` until its bytes are gone, as much as they need.
    pub(super) fn holding(self, memory: Option<Box<dyn HeldMemory>>) -> Self {
        let Self { content, remaining } = self;
        let content = match (content, memory) {
            (Content::Whole(bytes), Some(mut memory)) if !bytes.is_empty() => {
                memory.shrink(bytes.len());
                Content::Whole(Bytes::from_owner(HeldAnswer {
                    bytes,
                    _memory: memory,
                }))
            }
            (content, _) => content,
        };
        Self { content, remaining }
    }

    /// `length` bytes of windows. Waits for the first, so that damage found there becomes an error with a
    /// status instead of a broken connection.
    pub(super) async fn windows(
        length: u64,
        mut rest: Windows,
        metrics: &Arc<Metrics>,
        kind: Pulled,
    ) -> Result<Self> {
        let mut transfer = Transfer {
            metrics: Arc::clone(metrics),
            kind,
            ended: false,
            span: tracing::Span::current(),
        };
        let first = match rest.next().await.transpose() {
            Ok(first) => first,
            Err(error) => {
                transfer.end(Outcome::Error);
                return Err(error);
            }
        };
        if length == 0 {
            // Nothing is ever asked of an empty one.
            transfer.end(Outcome::Ok);
        }
        Ok(Self {
            remaining: length,
            content: Content::Windows {
                first,
                rest,
                transfer,
            },
        })
    }
}

impl Body {
    fn settle(&mut self, window: Option<Result<Bytes>>) -> Result<Frame<Bytes>> {
        let wrong = || Error::internal("storage gave out more or fewer bytes than the content has");
        let outcome = window.unwrap_or_else(|| Err(wrong())).and_then(|bytes| {
            let length = u64::try_from(bytes.len()).map_err(Error::internal)?;
            Ok((self.remaining.checked_sub(length).ok_or_else(wrong)?, bytes))
        });
        let transfer = match &mut self.content {
            Content::Whole(_) => None,
            Content::Windows { transfer, .. } => Some(transfer),
        };
        match (outcome, transfer) {
            (Ok((left, bytes)), transfer) => {
                self.remaining = left;
                if let (0, Some(transfer)) = (left, transfer) {
                    transfer.end(Outcome::Ok);
                }
                Ok(Frame::data(bytes))
            }
            (Err(error), None) => Err(error),
            (Err(error), Some(transfer)) => {
                transfer.end(Outcome::Error);
                let cause = std::error::Error::source(&error).map(tracing::field::display);
                transfer
                    .span
                    .in_scope(|| tracing::error!(%error, cause, "broke off an answer"));
                Err(error)
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.remaining == 0 {
            return Poll::Ready(None);
        }
        let window = match &mut this.content {
            Content::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            Content::Windows { first, rest, .. } => match first.take() {
                Some(first) => Some(Ok(first)),
                None => ready!(rest.poll_next_unpin(cx)),
            },
        };
        Poll::Ready(Some(this.settle(window)))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// A request's body.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Incoming,
    length: Option<u64>,
    /// Bytes of `length` that did not come yet.
    missing: u64,
    idle: Duration,
    clock: RunningClock,
    under_way: Weak<UnderWay>,
    state: Progress,
}

/// How far a body has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The client waits for a 100 before it sends, which hyper writes when the body is first asked for.
    Expected,
    /// More may come.
    Coming,
    /// It was read to its end.
    Over,
    /// It broke off, or nothing came for too long.
    Broken,
}

impl RequestBody {
    /// `idle` is how long the client may keep silent inside the body.
    pub(super) fn new(
        incoming: Incoming,
        expected: bool,
        idle: Duration,
        clock: &RunningClock,
    ) -> Self {
        let length = incoming.size_hint().exact();
        let state = match (incoming.is_end_stream(), expected) {
            (true, _) => Progress::Over,
            (false, true) => Progress::Expected,
            (false, false) => Progress::Coming,
        };
        Self {
            incoming,
            length,
            missing: length.unwrap_or(0),
            idle,
            clock: clock.clone(),
            under_way: Weak::new(),
            state,
        }
    }

    /// Notes whose body it is: where it is waited for, the client is.
    pub(super) fn is_of(&mut self, request: &Weak<UnderWay>) {
        self.under_way = Weak::clone(request);
    }

    /// Whether nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.state == Progress::Over || self.rest() == Some(0)
    }

    /// Bytes that will come, if that is known.
    pub(super) fn rest(&self) -> Option<u64> {
        let coming = self.state == Progress::Coming;
        self.length.filter(|_| coming).map(|_| self.missing)
    }

    /// Whether more is on its way, as far as is known.
    pub(super) fn is_coming(&self) -> bool {
        self.state == Progress::Coming
    }

    /// Whether more is on its way and only its end will tell how much.
    pub(super) fn is_chunked(&self) -> bool {
        self.is_coming() && self.length.is_none()
    }
}

impl Source for RequestBody {
    fn length(&self) -> Option<u64> {
        self.length
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.state {
            Progress::Over => return Ok(None),
            Progress::Broken => return Err(Error::BodyBroken),
            Progress::Expected | Progress::Coming => self.state = Progress::Coming,
        }
        let request = self.under_way.upgrade();
        let _awaited = request.as_ref().map(Awaited::by);
        loop {
            let client_ended = request.as_ref().map(|request| request.client_ended());
            let client_ended = OptionFuture::from(client_ended);
            let frame = self.clock.timeout(self.idle, self.incoming.frame());
            let frame = tokio::select! {
                biased;
                frame = frame => frame,
                Some(()) = client_ended => {
                    // What came after the look above came before the end.
                    let Some(frame) = self.incoming.frame().now_or_never() else {
                        self.state = Progress::Broken;
                        return Err(Error::BodyBroken);
                    };
                    Ok(frame)
                }
            };
            let error = match frame {
                Ok(None) if self.missing == 0 => {
                    self.state = Progress::Over;
                    return Ok(None);
                }
                // hyper ends a body like this where HTTP/2 resets its stream without an error.
                Ok(None) => Error::BodyBroken,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => {
                        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                        self.missing = self.missing.saturating_sub(length);
                        if bytes.len() < COPIED_BYTES {
                            return Ok(Some(Bytes::copy_from_slice(&bytes)));
                        }
                        return Ok(Some(bytes));
                    }
                    // Empty frames and trailers carry no content.
                    Ok(_) | Err(_) => continue,
                },
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "the body ended early");
                    if is_framing(&error) {
                        Error::BodyFraming
                    } else {
                        Error::BodyBroken
                    }
                }
                Err(_elapsed) => Error::BodyTimeout,
            };
            self.state = Progress::Broken;
            return Err(error);
        }
    }
}

/// Whether hyper could not read the chunks of a body.
fn is_framing(error: &hyper::Error) -> bool {
    let cause = error.source();
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    matches!(
        cause.map(io::Error::kind),
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
    )
}
