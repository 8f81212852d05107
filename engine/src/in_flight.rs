//! An operation that runs while its owner does something else.
//!
//! Owns: [`InFlight`]. Refuses: tasks; it needs no `Spawn`, and dropping it forgets the result, not the work.
//!
//! Invariant: waiting can be given up (the waiter's future dropped) and taken up again; nothing is lost.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A future that was started when it was made, and its result once it is there.
pub(crate) enum InFlight<T> {
    /// Not done when last looked at.
    Running(Pin<Box<dyn Future<Output = T> + Send>>),
    /// Done; `None` once taken.
    Done(Option<T>),
}

impl<T: Send + 'static> InFlight<T> {
    /// Starts `work`: it is polled once, so that it hands its first operation to the backend.
    pub(crate) fn start(work: impl Future<Output = T> + Send + 'static) -> Self {
        let mut work: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(work);
        // Whoever waits polls again with a waker of its own.
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Self::Done(Some(done)),
            Poll::Pending => Self::Running(work),
        }
    }

    /// Lets work of several operations begin its next one, where the one before is done. Does not wait.
    pub(crate) fn nudge(&mut self) {
        if let Self::Running(work) = self
            && let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            *self = Self::Done(Some(done));
        }
    }

    /// Waits until the result is there and borrows it; `None` once it was taken.
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
