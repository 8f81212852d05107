//! An operation that runs while its owner does something else.
//!
//! Owns: [`InFlight`]. Refuses: tasks. It needs no `Spawn`, and dropping it discards the result; the work continues.
//!
//! Invariant: waiting can be given up (the waiter's future dropped) and resumed; nothing is lost.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A future that was polled once when it was made, and its result when there is one.
pub(crate) enum InFlight<T> {
    /// Not done when last polled.
    Running(Pin<Box<dyn Future<Output = T> + Send>>),
    /// Done; `None` once taken.
    Done(Option<T>),
}

impl<T: Send + 'static> InFlight<T> {
    /// Starts `work`: polls it once, so that it passes its first operation to the backend.
    pub(crate) fn start(work: impl Future<Output = T> + Send + 'static) -> Self {
        let mut work: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(work);
        // A later waiter polls again with its own waker.
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Self::Done(Some(done)),
            Poll::Pending => Self::Running(work),
        }
    }

    /// Polls work of several operations, so that it begins the next one if the last is done. Does not wait.
    pub(crate) fn nudge(&mut self) {
        if let Self::Running(work) = self
            && let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            *self = Self::Done(Some(done));
        }
    }

    /// Waits for the result and borrows it; `None` once it was taken.
    pub(crate) async fn done(&mut self) -> &mut Option<T> {
        if let Self::Running(work) = self {
            let result = poll_fn(|context| work.as_mut().poll(context)).await;
            *self = Self::Done(Some(result));
        }
        match self {
            Self::Done(result) => result,
            Self::Running(_) => unreachable!("the work was just seen to be done"),
        }
    }
}

impl<T> fmt::Debug for InFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running(_) => "InFlight(running)",
            Self::Done(_) => "InFlight(done)",
        })
    }
}
