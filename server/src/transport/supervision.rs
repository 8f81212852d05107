//! What may end a connection beside itself.
//!
//! Owns: [`Attended`], and when a connection that asks for nothing is over. hyper bounds the wait for a head of HTTP/1.1; an HTTP/2
//! client that answers pings and asks for nothing would be kept for good.
//!
//! Invariant: whether for the end of the server or for silence, requests under way end first; cut off is only an answer that is not read,
//! a connection on which nothing moves while others wait for its place, and one that was told to go and asked for nothing since.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, BoxFuture, FutureExt as _};
use tokio::sync::watch;

use super::active_requests::Requests;
use super::close::{Close, LEAVE_MAX};
use super::connection_limits::ConnectionLimits;
use super::front_end::AnswerMemory;
use super::slots::{Leave, Taken};

/// How long a connection on which nothing is under way may take at the end of the server: HTTP/2 waits for an answer of its client.
const STOP_MAX: Duration = Duration::from_secs(1);
/// A connection on which nothing can be written for so long is not read at all.
const STUCK_MIN: Duration = Duration::from_secs(1);

/// A connection, and what is looked at beside it.
pub(super) struct Attended<'a> {
    pub(super) requests: Requests,
    pub(super) memory: Option<Arc<dyn AnswerMemory>>,
    pub(super) limits: &'a ConnectionLimits,
    pub(super) place: &'a Taken,
    pub(super) draining: watch::Receiver<bool>,
}

impl Attended<'_> {
    /// Resolves once others need the memory that the client's answers hold and that it does not take.
    fn revoked(&self) -> BoxFuture<'static, ()> {
        match &self.memory {
            Some(memory) => memory.revoked(),
            None => future::pending().boxed(),
        }
    }

    /// Ends the stream of HTTP/2 that the client takes nothing of; false where that would give no memory back: what is being written
    /// stays with the connection.
    fn end_stream_for_memory(&self) -> bool {
        let blocked = self.place.blocked_for().unwrap_or_default();
        let ended = blocked < STUCK_MIN && self.requests.end_for_memory();
        if let (true, Some(memory)) = (ended, &self.memory) {
            memory.gave_way();
        }
        ended
    }

    /// Answers requests until the connection ends. `shut_down` lets those under way end and takes no more.
    pub(super) async fn serve<C: Future<Output = hyper::Result<()>>>(
        self,
        connection: C,
        shut_down: fn(Pin<&mut C>),
    ) -> Close {
        let silence = self.limits.header_timeout;
        let (mut revoked, mut draining) = (self.revoked(), self.draining.clone());
        let mut connection = pin!(connection);
        let mut idle = pin!(self.requests.idle(silence));
        let mut unread = pin!(self.requests.end_unread(self.limits.unread_timeout));
        let (mut ending, mut stopping) = (false, false);
        let mut close = Close::Linger;
        loop {
            let mut patience = if stopping { STOP_MAX } else { silence };
            tokio::select! {
                ended = connection.as_mut() => {
                    let Err(error) = ended else { return close };
                    // Clients that go away are everyday; what was ours was logged where it happened.
                    tracing::debug!(%error, "a connection ended");
                    // hyper has answered a request that it does not understand, and says nothing about one that is late.
                    return match (error.is_parse(), error.is_timeout()) {
                        (true, _) => Close::Linger,
                        (false, true) if self.place.has_asked() => Close::Late,
                        _ => Close::Plainly,
                    };
                }
                never = &mut unread => match never {},
                () = &mut revoked => {
                    if self.end_stream_for_memory() {
                        revoked = self.revoked();
                        continue;
                    }
                    tracing::debug!("an answer was left unread while others waited for its memory");
                    return Close::Reset;
                }
                leave = self.place.told() => {
                    if leave == Leave::Now {
                        tracing::debug!("a connection was cut while others waited for its place");
                        return Close::Reset;
                    }
                    patience = LEAVE_MAX;
                }
                () = &mut idle => {
                    // Told to go and still here: HTTP/2 waits for an answer to that.
                    if ending && self.place.blocked_for().is_none() {
                        tracing::debug!("a connection that asked for nothing did not end");
                        return Close::Plainly;
                    }
                    if self.place.was_told() {
                        patience = LEAVE_MAX;
                    }
                }
                // The sender lives as long as connections do; its end would be the end of the server too.
                _ = draining.wait_for(|draining| *draining), if !stopping => {
                    stopping = true;
                    patience = STOP_MAX;
                }
            }
            idle.set(self.requests.idle(patience));
            ending = true;
            close = if self.requests.are_under_way() {
                Close::Linger
            } else {
                Close::Plainly
            };
            shut_down(connection.as_mut());
        }
    }
}
