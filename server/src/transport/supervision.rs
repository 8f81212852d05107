//! Supervision of a connection: everything that ends it from outside.
//!
//! Owns: [`Supervisor`]: shutdown, idleness, eviction, and answers that are left unread. hyper limits the wait for a
//! head of HTTP/1.1. But it would keep an HTTP/2 connection forever whose client answers pings and sends no request.
//!
//! Invariant: on shutdown and after idleness, active requests end first. A connection is closed during a request only
//! if its answer is not read, if `slots` evicts it for another, or if an earlier attempt to end it had no effect.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::active_requests::ActiveRequests;
use super::close::{Close, EVICTION_TIME_MAX};
use super::connection_limits::ConnectionLimits;
use super::front_end::AnswerMemory;
use super::mapped_answers::AnswerChanged;
use super::slots::{Eviction, Slot};

/// Time that an idle connection has to end on shutdown, because HTTP/2 waits for an answer of its client.
const STOP_MAX: Duration = Duration::from_secs(1);
/// If there is no room to write for this long, the client reads none of its streams.
const BLOCKED_MIN: Duration = Duration::from_secs(1);

/// The supervisor of one connection.
pub(super) struct Supervisor<'a> {
    pub(super) requests: ActiveRequests,
    pub(super) memory: Option<Arc<dyn AnswerMemory>>,
    pub(super) limits: &'a ConnectionLimits,
    pub(super) slot: &'a Slot,
    pub(super) draining: CancellationToken,
}

impl Supervisor<'_> {
    /// Resolves once others need the memory of answers that the client does not read.
    fn revoked(&self) -> BoxFuture<'static, ()> {
        match &self.memory {
            Some(memory) => memory.revoked(),
            None => future::pending().boxed(),
        }
    }

    /// Resets an HTTP/2 stream that the client does not read. Returns false if that would free no memory, because bytes
    /// that are being written stay with the connection.
    fn reset_stream_for_memory(&self) -> bool {
        let blocked = self.slot.blocked_for().unwrap_or_default();
        let ended = blocked < BLOCKED_MIN && self.requests.reset_stream_for_memory();
        if let (true, Some(memory)) = (ended, &self.memory) {
            memory.record_drop();
        }
        ended
    }

    /// Answers requests until the connection ends. `shut_down` makes it accept no more, and end after the active ones.
    pub(super) async fn serve<C: Future<Output = hyper::Result<()>>>(
        self,
        connection: C,
        shut_down: fn(Pin<&mut C>),
    ) -> Close {
        let silence = self.limits.header_timeout;
        let mut revoked = self.revoked();
        let mut connection = pin!(connection);
        let mut idle = pin!(self.requests.idle(silence));
        let mut unread = pin!(
            self.requests
                .reset_unread_streams(self.limits.unread_timeout)
        );
        let (mut ending, mut stopping) = (false, false);
        let mut close = Close::Linger;
        loop {
            let waiting = async {
                tokio::select! {
                    never = &mut unread => match never {},
                    () = &mut revoked => Event::Revoked,
                    eviction = self.slot.evicted() => Event::Evicted(eviction),
                    () = &mut idle => Event::Idle,
                    () = self.draining.cancelled(), if !stopping => Event::Draining,
                }
            };
            // Polled only if it was woken, and not each time that the connection is. It comes first, because a
            // connection that is never idle may use up the budget of the task, and then nothing after it is polled.
            let mut events = FuturesUnordered::from_iter([waiting]);
            let event = tokio::select! {
                biased;
                Some(event) = events.next() => event,
                ended = connection.as_mut() => return self.ended(ended, close),
            };
            drop(events);
            let mut timeout = if stopping { STOP_MAX } else { silence };
            match event {
                Event::Revoked => {
                    if self.reset_stream_for_memory() {
                        revoked = self.revoked();
                        continue;
                    }
                    tracing::debug!("an answer was left unread while others waited for its memory");
                    return Close::Reset;
                }
                Event::Evicted(Eviction::Now) => {
                    tracing::debug!("a connection was closed because others waited for its slot");
                    return Close::Reset;
                }
                Event::Evicted(Eviction::WhenIdle) => timeout = EVICTION_TIME_MAX,
                // It did not end in time: HTTP/2 waits for an answer to that.
                Event::Idle if ending && self.slot.blocked_for().is_none() => {
                    tracing::debug!("an idle connection was closed because it did not end in time");
                    return Close::Immediate;
                }
                Event::Idle if self.slot.is_evicted() => timeout = EVICTION_TIME_MAX,
                Event::Idle => {}
                Event::Draining => {
                    stopping = true;
                    timeout = STOP_MAX;
                }
            }
            idle.set(self.requests.idle(timeout));
            ending = true;
            close = if self.requests.any_active() {
                Close::Linger
            } else {
                Close::Immediate
            };
            shut_down(connection.as_mut());
        }
    }

    /// Returns how to close a connection that has ended. `close` is for one that ended without an error.
    fn ended(&self, ended: hyper::Result<()>, close: Close) -> Close {
        let Err(error) = ended else { return close };
        // Clients disconnect often; errors of the server were logged where they occurred.
        tracing::debug!(%error, "a connection ended");
        if has_changed(&error) {
            // What the kernel has not sent yet is discarded.
            return Close::Reset;
        }
        // hyper has answered a request that it cannot parse, but not a late one.
        match (error.is_parse(), error.is_timeout()) {
            (true, _) => Close::Linger,
            (false, true) if self.slot.has_request_pending() => Close::RequestTimeout,
            _ => Close::Immediate,
        }
    }
}

/// What happens to a connection from outside.
enum Event {
    /// Others need the memory of its answers.
    Revoked,
    Evicted(Eviction),
    /// No request was active for too long.
    Idle,
    /// The server stops.
    Draining,
}

/// Returns whether bytes of an answer may have changed after they were checked.
fn has_changed(error: &hyper::Error) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    let cause = cause.and_then(io::Error::get_ref);
    matches!(cause, Some(cause) if cause.is::<AnswerChanged>())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll};

    use tokio::task::coop;

    use super::super::connection_limits::Http2Options;
    use super::super::slots::Slots;
    use super::*;
    use crate::clock::RunningClock;

    /// A connection that always has work, until it is shut down.
    struct Busy(AtomicBool);

    impl Future for Busy {
        type Output = hyper::Result<()>;

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
            if self.0.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            while let Poll::Ready(progress) = coop::poll_proceed(cx) {
                progress.made_progress();
            }
            Poll::Pending
        }
    }

    /// Guards: a connection that uses up the budget of its task each time is told that the server stops.
    #[tokio::test]
    async fn a_busy_connection_is_shut_down() {
        let clock = RunningClock::start();
        let timeout = Duration::from_secs(100);
        let limits = ConnectionLimits::new(timeout, timeout, &Http2Options::default(), &clock);
        let slot = Slots::new(1, &clock).take(IpAddr::from([10, 0, 0, 1]));
        let slot = Arc::new(slot.expect("a slot"));
        let draining = CancellationToken::new();
        let supervisor = Supervisor {
            requests: ActiveRequests::new(Arc::clone(&slot), &clock),
            memory: None,
            limits: &limits,
            slot: &slot,
            draining: draining.clone(),
        };
        let shut_down = |busy: Pin<&mut Busy>| busy.0.store(true, Ordering::Relaxed);
        let serving = supervisor.serve(Busy(AtomicBool::new(false)), shut_down);
        let stopping = async { draining.cancel() };
        let served = tokio::time::timeout(timeout, future::join(serving, stopping));
        assert!(served.await.is_ok());
    }
}
