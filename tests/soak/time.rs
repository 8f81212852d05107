//! How long the server ran, as its clients can know it.
//!
//! Owns: [`ServerTime`], which decides whether a promise of a server with a grace must still hold. Refuses: guesses. A
//! promise that may have ended holds no more, whatever the server still has.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Most that the server counts of a time in which it was stopped.
const COUNTED_OF_A_STOP: Duration = Duration::from_millis(250);

/// The grace of the server, and the times in which it was stopped.
#[derive(Debug)]
pub struct ServerTime {
    grace: Duration,
    stops: Mutex<Vec<(Instant, Option<Instant>)>>,
}

impl ServerTime {
    /// Creates the time of a server that was not stopped yet.
    pub fn new(grace: Duration) -> Self {
        Self {
            grace,
            stops: Mutex::default(),
        }
    }

    /// Records that the server does not run from now on.
    pub fn stopped(&self) {
        self.stops.lock().push((Instant::now(), None));
    }

    /// Records that the server will run again at once.
    pub fn will_continue(&self) {
        if let Some((_, end)) = self.stops.lock().last_mut() {
            *end = Some(Instant::now());
        }
    }

    /// Returns whether a promise of the answer to a request sent at `sent` still held at `answered`, when the answer to
    /// a later request arrived. The promise was made after `sent`, and the later request was carried out before
    /// `answered`. So this is never true for a promise that had ended.
    pub fn is_held(&self, sent: Instant, answered: Instant) -> bool {
        self.ran(sent, answered) < self.grace
    }

    /// Returns whether the promise held only because a stop does not count.
    pub fn is_held_by_stop(&self, sent: Instant, answered: Instant) -> bool {
        answered - sent >= self.grace && self.is_held(sent, answered)
    }

    /// Returns the longest time that the server may have counted between the two.
    fn ran(&self, from: Instant, to: Instant) -> Duration {
        let stops = self.stops.lock();
        let uncounted = stops.iter().rev().map(|(begin, end)| {
            let (begin, end) = ((*begin).max(from), end.unwrap_or(to).min(to));
            end.saturating_duration_since(begin)
                .saturating_sub(COUNTED_OF_A_STOP)
        });
        (to - from).saturating_sub(uncounted.sum())
    }
}

/// Guards: the check itself: a stop extends a promise by what the server does not count, and nothing else does.
#[test]
fn only_stops_extend_a_promise() {
    let time = ServerTime::new(Duration::from_secs(1));
    let at = |ms| Duration::from_millis(ms);
    let begin = Instant::now();
    assert!(time.is_held(begin, begin + at(999)) && !time.is_held(begin, begin + at(1000)));
    time.stops
        .lock()
        .push((begin + at(500), Some(begin + at(3500))));
    assert!(time.is_held_by_stop(begin, begin + at(3700)));
    assert!(!time.is_held(begin, begin + at(3750)));
    assert!(!time.is_held(begin + at(3500), begin + at(4500)));
    time.stops.lock().push((begin + at(4000), None));
    assert!(time.is_held(begin + at(3600), begin + at(60_000)));
}
