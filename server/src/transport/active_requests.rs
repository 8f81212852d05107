//! The active requests of one connection.
//!
//! Owns: [`ActiveRequests`] and [`ActiveRequest`]. A request is active from its head until the last byte of its answer
//! was written to the connection. Meanwhile either the server works on it, or the server waits for the client
//! ([`ClientWait`]): for more of the request's body, or for the client to read more of the answer. A client of HTTP/2
//! can leave single answers unread by flow control; the streams of such answers are reset, and the connection
//! continues.
//! Refuses: ending connections, which `supervision` does; bytes, which `tracked_body` and `request_body` carry.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::cork::Continuation;
use super::http2_streams::StreamReset;
use super::request_memory::HeldRequest;
use super::slots::Slot;
use crate::clock::RunningClock;

/// The active requests of a connection. It is cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ActiveRequests(Arc<Shared>);

/// What the requests of a connection share.
#[derive(Debug)]
struct Shared {
    active: Mutex<Vec<Weak<ActiveRequest>>>,
    /// Cancelled when a client of HTTP/2 has ended its side of the connection.
    client_ended: CancellationToken,
    /// Whether the newest answer continues at once.
    continuation: Continuation,
    slot: Arc<Slot>,
    clock: RunningClock,
}

/// An active request, until it drops.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    requests: ActiveRequests,
    /// The number of its [`ClientWait`]s.
    client_waits: AtomicUsize,
    /// Whether the answer holds memory of the client's account.
    holds_memory: AtomicBool,
    /// Whether its stream lasts until the client has read all of it.
    keeps_stream: AtomicBool,
    /// When the client last read a part of the answer, in microseconds of the clock.
    taken_us: AtomicU64,
    /// Resets the stream of the answer; `None` on HTTP/1.1, before the answer, and after the reset.
    stream: Mutex<Option<StreamReset>>,
    #[expect(dead_code, reason = "held for its drop")]
    held: Option<Arc<HeldRequest>>,
}

/// A mark that the server waits for the client of a request, until it is dropped.
#[derive(Debug)]
pub(super) struct ClientWait(Arc<ActiveRequest>);

impl ActiveRequests {
    pub(super) fn new(slot: Arc<Slot>, clock: &RunningClock) -> Self {
        Self(Arc::new(Shared {
            active: Mutex::default(),
            client_ended: CancellationToken::new(),
            continuation: Continuation::default(),
            slot,
            clock: clock.clone(),
        }))
    }

    pub(super) fn begin(&self, held: Option<Arc<HeldRequest>>) -> Arc<ActiveRequest> {
        let request = Arc::new(ActiveRequest {
            requests: self.clone(),
            client_waits: AtomicUsize::new(0),
            holds_memory: AtomicBool::new(false),
            keeps_stream: AtomicBool::new(false),
            taken_us: AtomicU64::new(0),
            stream: Mutex::new(None),
            held,
        });
        let mut active = self.0.active.lock();
        active.push(Arc::downgrade(&request));
        self.0.slot.set_idle(false);
        drop(active);
        self.0.slot.start_work();
        request
    }

    /// Returns the slot of the connection.
    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.0.slot
    }

    /// Returns whether the newest answer continues at once. On HTTP/2 this says nothing of the others.
    pub(super) fn continuation(&self) -> &Continuation {
        &self.0.continuation
    }

    pub(super) fn any_active(&self) -> bool {
        !self.0.active.lock().is_empty()
    }

    /// Records that a client of HTTP/2 has ended its side: requests that are not complete fail.
    pub(super) fn set_client_ended(&self) {
        self.0.client_ended.cancel();
    }

    /// Resolves once no request was active for `timeout`. It checks on a timer, so that a request causes no wake-up.
    pub(super) fn idle(&self, timeout: Duration) -> impl Future<Output = ()> + use<> {
        let (clock, slot) = (self.0.clock.clone(), Arc::clone(&self.0.slot));
        async move {
            // Not before the limit on a head, whose answer says why the connection ends.
            let begun = clock.coarse();
            let mut alarm = clock.alarm(timeout);
            loop {
                (&mut alarm).await;
                let (now, since) = (clock.now(), slot.idle_since());
                let until = since.map_or(now, |since| since.max(begun));
                let until = until.saturating_add(timeout);
                if since.is_some() && until <= now {
                    return;
                }
                alarm.set(until);
            }
        }
    }

    /// Resets each stream of whose answer the client read nothing for `timeout`.
    pub(super) async fn reset_unread_streams(&self, timeout: Duration) -> Infallible {
        loop {
            let now = self.0.clock.now();
            let oldest = self.longest_unread(|_| true);
            let until = oldest.as_ref().map_or(now, |request| request.taken());
            let until = until.saturating_add(timeout);
            match oldest {
                Some(oldest) if until <= now => oldest.reset_stream(),
                _ => {
                    drop(oldest);
                    self.0.clock.alarm_at(until).await;
                }
            }
        }
    }

    /// Resets the stream whose answer holds memory and was left unread for the longest time. Returns false if there is
    /// none.
    pub(super) fn reset_stream_for_memory(&self) -> bool {
        let holds_memory = |request: &ActiveRequest| request.holds_memory.load(Ordering::Relaxed);
        let longest = self.longest_unread(holds_memory);
        longest.inspect(|request| request.reset_stream()).is_some()
    }

    /// Returns the stream whose answer the client has left unread for the longest time.
    fn longest_unread(
        &self,
        counts: impl Fn(&ActiveRequest) -> bool,
    ) -> Option<Arc<ActiveRequest>> {
        // Collected first, because dropping a request takes the lock.
        let active = self.0.active.lock().clone();
        let active = active.iter().filter_map(Weak::upgrade);
        let unread = active.filter(|request| request.is_unread() && counts(request));
        unread.min_by_key(|request| request.taken())
    }
}

impl ActiveRequest {
    /// Resolves once the client has ended its side of the connection, so no more will be received.
    pub(super) fn client_ended(&self) -> WaitForCancellationFuture<'_> {
        self.requests.0.client_ended.cancelled()
    }

    /// Records that the answer holds memory of the client's account from now on.
    pub(super) fn hold_memory(&self) {
        self.holds_memory.store(true, Ordering::Relaxed);
        self.keep_stream();
    }

    /// Keeps the stream of the answer until the client has read all of it, so that it is reset if it is left unread.
    pub(super) fn keep_stream(&self) {
        self.keeps_stream.store(true, Ordering::Relaxed);
    }

    /// Records that the answer begins. Call it in the task of its stream.
    pub(super) fn begin_answer(&self) {
        self.record_taken();
        if let Some(stream) = StreamReset::current() {
            *self.stream.lock() = Some(stream);
        }
    }

    /// Records whether the answer continues at once after what its body has returned.
    pub(super) fn set_continues(&self, continues: bool) {
        self.requests.0.continuation.set(continues);
    }

    /// Records that the client read a part of the answer.
    pub(super) fn record_taken(&self) {
        let now = self.requests.0.clock.recent();
        let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.taken_us.store(now_us, Ordering::Relaxed);
    }

    /// Returns whether the answer has a stream that lasts until the client has read all of it.
    pub(super) fn has_kept_stream(&self) -> bool {
        self.keeps_stream.load(Ordering::Relaxed) && self.stream.lock().is_some()
    }

    fn taken(&self) -> Duration {
        Duration::from_micros(self.taken_us.load(Ordering::Relaxed))
    }

    fn is_unread(&self) -> bool {
        self.client_waits.load(Ordering::Relaxed) > 0 && self.stream.lock().is_some()
    }

    fn reset_stream(&self) {
        let stream = self.stream.lock().take();
        stream.inspect(StreamReset::reset);
    }
}

impl ClientWait {
    pub(super) fn begin(request: &Arc<ActiveRequest>) -> Self {
        if request.client_waits.fetch_add(1, Ordering::Relaxed) == 0 {
            request.requests.0.slot.finish_work();
        }
        Self(Arc::clone(request))
    }

    /// Returns the request.
    pub(super) fn request(&self) -> &Arc<ActiveRequest> {
        &self.0
    }
}

impl Drop for ClientWait {
    fn drop(&mut self) {
        if self.0.client_waits.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.requests.0.slot.start_work();
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let slot = &self.requests.0.slot;
        slot.finish_work();
        let mut active = self.requests.0.active.lock();
        active.retain(|request| request.strong_count() > 0);
        if active.is_empty() {
            slot.set_idle(true);
        }
    }
}
