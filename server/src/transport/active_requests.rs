//! The requests of one connection.
//!
//! Owns: [`Requests`], the requests that are under way, and [`UnderWay`], one of them. A request is under way from its head until the
//! connection has taken the last byte of its answer. Meanwhile either the server works on it or the client is awaited ([`Awaited`]): to
//! send more of its body, or to take more of the answer. A client of HTTP/2 can leave single answers unread, by their windows; the
//! streams of such answers are ended, and the connection continues.
//! Refuses: ending connections, which `supervision` does; bytes, which are `tracked_body`'s and `request_body`'s.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::http2_streams::StreamEnd;
use super::request_memory::HeldRequest;
use super::slots::Taken;
use crate::clock::RunningClock;

/// The requests that are under way. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    under_way: Arc<Mutex<Vec<Weak<UnderWay>>>>,
    /// Whether a client of HTTP/2 has ended its side of the connection.
    client_ended: watch::Sender<bool>,
    place: Arc<Taken>,
    clock: RunningClock,
}

/// A request under way, until it drops.
#[derive(Debug)]
pub(super) struct UnderWay {
    requests: Requests,
    /// How many [`Awaited`] there are.
    awaits: AtomicUsize,
    /// Whether the answer holds memory of the client's account.
    holds_memory: AtomicBool,
    /// When the client last took a part of the answer, in microseconds of the clock.
    taken_us: AtomicU64,
    /// Ends the stream of the answer. There is none on HTTP/1.1, before the answer, and once it was used.
    stream: Mutex<Option<StreamEnd>>,
    #[expect(dead_code, reason = "held for its drop")]
    held: Option<Arc<HeldRequest>>,
}

/// The client is awaited, until it drops.
#[derive(Debug)]
pub(super) struct Awaited(Arc<UnderWay>);

impl Requests {
    pub(super) fn new(place: Arc<Taken>, clock: &RunningClock) -> Self {
        Self {
            under_way: Arc::default(),
            client_ended: watch::Sender::default(),
            place,
            clock: clock.clone(),
        }
    }

    pub(super) fn begin(&self, held: Option<Arc<HeldRequest>>) -> Arc<UnderWay> {
        let request = Arc::new(UnderWay {
            requests: self.clone(),
            awaits: AtomicUsize::new(0),
            holds_memory: AtomicBool::new(false),
            taken_us: AtomicU64::new(0),
            stream: Mutex::new(None),
            held,
        });
        let mut under_way = self.under_way.lock();
        under_way.push(Arc::downgrade(&request));
        self.place.set_idle(false);
        drop(under_way);
        self.place.work_begins();
        request
    }

    /// The place of the connection.
    pub(super) fn place(&self) -> &Arc<Taken> {
        &self.place
    }

    pub(super) fn are_under_way(&self) -> bool {
        !self.under_way.lock().is_empty()
    }

    /// Notes that a client of HTTP/2 sends nothing any more: requests that are not whole fail.
    pub(super) fn set_client_ended(&self) {
        self.client_ended.send_replace(true);
    }

    /// Resolves once there was none for `patience`. Looks on a timer, so that a request costs no wake-up.
    pub(super) fn idle(&self, patience: Duration) -> impl Future<Output = ()> + use<> {
        let (clock, place) = (self.clock.clone(), Arc::clone(&self.place));
        async move {
            let begun = clock.now();
            let mut alarm = clock.alarm(patience);
            loop {
                (&mut alarm).await;
                let (now, since) = (clock.now(), place.idle_since());
                let until = since.map_or(now, |since| since.max(begun));
                let until = until.saturating_add(patience);
                if since.is_some() && until <= now {
                    return;
                }
                alarm.set(until);
            }
        }
    }

    /// Ends each stream of whose answer the client took nothing for `patience`.
    pub(super) async fn end_unread(&self, patience: Duration) -> Infallible {
        loop {
            let now = self.clock.now();
            let oldest = self.longest_unread(|_| true);
            let until = oldest.as_ref().map_or(now, |request| request.taken());
            let until = until.saturating_add(patience);
            match oldest {
                Some(oldest) if until <= now => oldest.end_stream(),
                _ => {
                    drop(oldest);
                    self.clock.alarm_at(until).await;
                }
            }
        }
    }

    /// Ends the stream of the answer that holds memory and of which the client took nothing for the longest time; false if none can be
    /// ended.
    pub(super) fn end_for_memory(&self) -> bool {
        let holds_memory = |request: &UnderWay| request.holds_memory.load(Ordering::Relaxed);
        let longest = self.longest_unread(holds_memory);
        longest.inspect(|request| request.end_stream()).is_some()
    }

    /// Of the streams whose client is awaited to take the answer, the one on which that is so for the longest time.
    fn longest_unread(&self, counts: impl Fn(&UnderWay) -> bool) -> Option<Arc<UnderWay>> {
        // Collected first: a request that drops here needs the lock.
        let under_way = self.under_way.lock().clone();
        let under_way = under_way.iter().filter_map(Weak::upgrade);
        let unread = under_way.filter(|request| request.is_unread() && counts(request));
        unread.min_by_key(|request| request.taken())
    }
}

impl UnderWay {
    /// Resolves once the client has ended its side of the connection: what did not come will not.
    pub(super) fn client_ended(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut ended = self.requests.client_ended.subscribe();
        async move {
            if ended.wait_for(|ended| *ended).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The answer holds memory of the client's account from now on.
    pub(super) fn hold_memory(&self) {
        self.holds_memory.store(true, Ordering::Relaxed);
    }

    /// The answer is known, in the task of its stream.
    pub(super) fn answer(&self) {
        self.note_taken();
        *self.stream.lock() = StreamEnd::current();
    }

    /// The client took a part of the answer.
    pub(super) fn note_taken(&self) {
        let now = self.requests.clock.recent();
        let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.taken_us.store(now_us, Ordering::Relaxed);
    }

    /// Whether the answer is one of several on its connection, and may take long.
    pub(super) fn has_stream_for_memory(&self) -> bool {
        self.holds_memory.load(Ordering::Relaxed) && self.stream.lock().is_some()
    }

    fn taken(&self) -> Duration {
        Duration::from_micros(self.taken_us.load(Ordering::Relaxed))
    }

    fn is_unread(&self) -> bool {
        self.awaits.load(Ordering::Relaxed) > 0 && self.stream.lock().is_some()
    }

    fn end_stream(&self) {
        let stream = self.stream.lock().take();
        stream.inspect(StreamEnd::end);
    }
}

impl Awaited {
    pub(super) fn by(request: &Arc<UnderWay>) -> Self {
        if request.awaits.fetch_add(1, Ordering::Relaxed) == 0 {
            request.requests.place.work_ends();
        }
        Self(Arc::clone(request))
    }

    /// The request whose client it is.
    pub(super) fn request(&self) -> &Arc<UnderWay> {
        &self.0
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
        let place = &self.requests.place;
        place.work_ends();
        let mut under_way = self.requests.under_way.lock();
        under_way.retain(|request| request.strong_count() > 0);
        if under_way.is_empty() {
            place.set_idle(true);
        }
    }
}
