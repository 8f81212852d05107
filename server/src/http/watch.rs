//! The answers that a connection is in the middle of.
//!
//! Owns: when each was last asked for more. `socket` sees that nothing is read on a whole connection; an HTTP/2 client can
//! also leave single streams unread, by their windows, and each holds buffers of the read budget.
//! Refuses: ending anything; `server` drops the connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

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
    asked: HashMap<u64, Duration>,
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
        answers.asked.insert(number, self.clock.now());
        Watched {
            watch: self.clone(),
            number,
        }
    }

    /// Resolves once an answer was not asked for more for `patience`.
    pub(super) async fn forgotten(&self, patience: Duration) {
        loop {
            let (oldest, now) = (
                self.answers.lock().asked.values().min().copied(),
                self.clock.now(),
            );
            let until = oldest.unwrap_or(now).saturating_add(patience);
            if until <= now {
                return;
            }
            self.clock.alarm_at(until).await;
        }
    }
}

impl Watched {
    /// More of it was asked for.
    pub(super) fn asked(&self) {
        let now = self.watch.clock.now();
        self.watch.answers.lock().asked.insert(self.number, now);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.answers.lock().asked.remove(&self.number);
    }
}
