//! Bodies of answers.
//!
//! Owns: [`Body`], which passes verified windows on to the connection without a copy.
//! Refuses: ending an answer early without an error.
//!
//! Invariant: a body has exactly as many bytes as its Content-Length states, or fails, which closes the connection.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::{Frame, SizeHint};

use crate::registry::ports::{HeldMemory, Windows};
use crate::registry::{Error, Result};
use crate::telemetry::{Metrics, Outcome, Pulled};

/// An answer's body.
pub(crate) struct Body {
    content: Content,
    remaining: u64,
}

enum Content {
    Whole(Bytes),
    /// All of what is transferred.
    Counted(Bytes, Transfer),
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

/// The bytes of an answer, with the memory that is reserved for them.
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

/// Counts a transfer once, by its outcome.
struct Transfer {
    metrics: Arc<Metrics>,
    kind: Pulled,
    ended: bool,
    span: tracing::Span,
}

impl Transfer {
    /// Counts the transfer, unless it is counted already.
    fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.ended, true) {
            self.metrics.pulled(self.kind, outcome);
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // Dropped before its end without an error of the server: the client disconnected.
        self.end(Outcome::Client);
    }
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self {
            remaining: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            content: Content::Whole(bytes),
        }
    }

    /// Creates the body of a transfer whose bytes are in memory, not empty.
    pub(crate) fn counted(bytes: Bytes, metrics: &Arc<Metrics>, kind: Pulled) -> Self {
        let transfer = Transfer {
            metrics: Arc::clone(metrics),
            kind,
            ended: false,
            span: tracing::Span::none(),
        };
        Self {
            remaining: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            content: Content::Counted(bytes, transfer),
        }
    }

    /// Returns the bytes of a transfer if all of them are in memory.
    pub(crate) fn whole_transfer(&self) -> Option<(&Bytes, Pulled)> {
        match &self.content {
            Content::Windows {
                first: Some(first),
                transfer,
                ..
            } if u64::try_from(first.len()) == Ok(self.remaining) => Some((first, transfer.kind)),
            Content::Whole(_) | Content::Counted(..) | Content::Windows { .. } => None,
        }
    }

    /// Holds `memory` until the bytes are sent, as much of it as they need.
    pub(crate) fn with_memory(self, memory: Option<Box<dyn HeldMemory>>) -> Self {
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

    /// Creates a body of `length` bytes in windows. It waits for the first window, so that damage in it is reported by
    /// a status and not by a closed connection.
    pub(crate) async fn windows(
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
            // An empty body is never polled.
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
    fn check_window(&mut self, window: Option<Result<Bytes>>) -> Result<Frame<Bytes>> {
        let wrong =
            || Error::internal("the storage returned more or fewer bytes than the content has");
        let outcome = window.unwrap_or_else(|| Err(wrong())).and_then(|bytes| {
            let length = u64::try_from(bytes.len()).map_err(Error::internal)?;
            Ok((self.remaining.checked_sub(length).ok_or_else(wrong)?, bytes))
        });
        let transfer = match &mut self.content {
            Content::Whole(_) => None,
            Content::Counted(_, transfer) | Content::Windows { transfer, .. } => Some(transfer),
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
                    .in_scope(|| tracing::error!(%error, cause, "an answer was aborted"));
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
            Content::Whole(bytes) | Content::Counted(bytes, _) => Some(Ok(std::mem::take(bytes))),
            Content::Windows { first, rest, .. } => match first.take() {
                Some(first) => Some(Ok(first)),
                None => ready!(rest.poll_next_unpin(cx)),
            },
        };
        Poll::Ready(Some(this.check_window(window)))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
