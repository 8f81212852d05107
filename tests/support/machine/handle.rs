//! The handle of the executor that engine and disk use: tasks, virtual time, randomness.
//!
//! Refuses: anything new once the machine is stopped; it is dropped.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tonnage_engine::io::{Clock, Rng, Spawn, TaskFuture};

use super::executor::{Job, Shared, Task};

/// The wall clock when the machine starts, 2027-01-15.
const WALL_START_MS: u64 = 1_800_000_000_000;

/// A handle of the executor. It is cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Spawn for Handle {
    fn spawn(&self, name: &'static str, task: TaskFuture) {
        let mut state = self.shared.state.lock();
        if state.stopped {
            drop(state);
            drop(task);
            return;
        }
        let id = state.next_id();
        state.tasks.insert(
            id,
            Task {
                name,
                future: Some(task),
            },
        );
        state.ready.insert(id);
    }

    fn compute(&self, job: Job) {
        let mut state = self.shared.state.lock();
        if state.stopped {
            drop(state);
            drop(job);
        } else {
            state.jobs.push(job);
        }
    }
}

impl Clock for Handle {
    fn monotonic(&self) -> Duration {
        self.shared.state.lock().now
    }

    fn wall_unix_ms(&self) -> u64 {
        WALL_START_MS + self.monotonic().as_millis() as u64
    }

    fn sleep(&self, duration: Duration) -> TaskFuture {
        let (fire, fired) = oneshot::channel();
        let mut state = self.shared.state.lock();
        let key = (state.now + duration, state.next_id());
        if !state.stopped {
            state.timers.insert(key, fire);
        }
        drop(state);
        Box::pin(async move {
            if fired.await.is_err() {
                std::future::pending::<()>().await; // the machine stopped
            }
        })
    }
}

impl Rng for Handle {
    fn fill(&self, bytes: &mut [u8]) {
        self.shared.state.lock().entropy.fill(bytes);
    }
}

impl Debug for Handle {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Executor")
            .field("seed", &self.shared.seed)
            .field("now", &state.now)
            .field("tasks", &state.tasks.len())
            .finish_non_exhaustive()
    }
}
