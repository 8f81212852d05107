//! The answers that a connection is in the middle of.
//!
//! Owns: when each was last asked for more. `socket` sees that nothing is read on a whole connection; an HTTP/2 client can
//! also leave single streams unread, by their windows, and each holds buffers of the read budget.
//! Refuses: ending anything; `server` drops the connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// One connection's answers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    next: u64,
    asked: HashMap<u64, Instant>,
}

/// An answer under watch, until it drops.
#[derive(Debug)]
pub(super) struct Watched {
    watch: Watch,
    number: u64,
}

impl Watch {
    /// Begins to watch an answer.
    pub(super) fn begin(&self) -> Watched {
        let mut answers = self.0.lock();
        let number = answers.next;
        answers.next += 1;
        answers.asked.insert(number, Instant::now());
        Watched {
            watch: self.clone(),
            number,
        }
    }

    /// Resolves once an answer was not asked for more for `patience`.
    pub(super) async fn forgotten(&self, patience: Duration) {
        loop {
            let oldest = self.0.lock().asked.values().min().copied();
            let until = oldest.unwrap_or_else(Instant::now) + patience;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Watched {
    /// More of it was asked for.
    pub(super) fn asked(&self) {
        let mut answers = self.watch.0.lock();
        answers.asked.insert(self.number, Instant::now());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.0.lock().asked.remove(&self.number);
    }
}
