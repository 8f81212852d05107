//! The answers that a connection is in the middle of.
//!
//! Owns: when each was last asked for more. `socket` sees that nothing is read on a whole connection; an HTTP/2 client can
//! also leave single streams unread, by their windows, and each holds buffers of the read budget.
//! Such a stream is ended, and the connection goes on.
//! Refuses: ending connections, which `connection` does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::streams::StreamEnd;
use crate::clock::RunningClock;

/// One connection's answers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    answers: Arc<Mutex<Answers>>,
    clock: RunningClock,
}

#[derive(Debug, Default)]
struct Answers {
    next: u64,
    open: HashMap<u64, Answer>,
}

#[derive(Debug)]
struct Answer {
    asked: Duration,
    end: Option<StreamEnd>,
}

/// An answer under watch, until it drops.
#[derive(Debug)]
pub(super) struct Watched {
    watch: Watch,
    number: u64,
}

impl Watch {
    pub(super) fn new(clock: &RunningClock) -> Self {
        Self {
            answers: Arc::default(),
            clock: clock.clone(),
        }
    }

    /// Begins to watch an answer.
    pub(super) fn begin(&self) -> Watched {
        let mut answers = self.answers.lock();
        let number = answers.next;
        answers.next += 1;
        let answer = Answer {
            asked: self.clock.now(),
            end: StreamEnd::current(),
        };
        answers.open.insert(number, answer);
        Watched {
            watch: self.clone(),
            number,
        }
    }

    /// Ends the streams whose answers were not asked for more for `patience`. Resolves once that is so of one that cannot be ended alone.
    pub(super) async fn forgotten(&self, patience: Duration) {
        loop {
            let now = self.clock.now();
            let oldest = self.answers.lock().oldest().map(|(_, asked)| asked);
            let until = oldest.unwrap_or(now).saturating_add(patience);
            if until > now {
                self.clock.alarm_at(until).await;
            } else if !self.end_oldest() {
                return;
            }
        }
    }

    /// Ends the stream whose answer was not asked for more for the longest time; false if none can be.
    pub(super) fn end_oldest(&self) -> bool {
        let mut answers = self.answers.lock();
        let oldest = answers.oldest();
        let ended = oldest.and_then(|(number, _)| answers.open.remove(&number)?.end);
        ended.inspect(StreamEnd::end).is_some()
    }
}

impl Answers {
    /// The answer that was not asked for more for the longest time, and when it was last.
    fn oldest(&self) -> Option<(u64, Duration)> {
        let answers = self.open.iter();
        let asked = answers.map(|(number, answer)| (*number, answer.asked));
        asked.min_by_key(|(_, asked)| *asked)
    }
}

impl Watched {
    /// More of it was asked for.
    pub(super) fn asked(&self) {
        let now = self.watch.clock.now();
        if let Some(answer) = self.watch.answers.lock().open.get_mut(&self.number) {
            answer.asked = now;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.answers.lock().open.remove(&self.number);
    }
}
