//! The environment of unit tests: the native backend, tokio's tasks and timers, a thread for computations.
//!
//! Owns: [`env()`]. Refuses: faults and crashes, which the simulated machine of `tests/support` injects.

#![expect(
    clippy::disallowed_methods,
    reason = "the clocks of the seam's implementation"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;

use super::{Backend, Clock, Env, Rng, Spawn, TaskFuture, Workers, native};
use crate::sync::AtomicU64;
use crate::vocabulary::ClientId;

/// Creates an environment. Tasks run on the tokio runtime of the caller.
pub(crate) fn env() -> Env {
    Env {
        io: native(Backend::Auto).unwrap().io,
        clock: Arc::new(SystemClock(Instant::now())),
        spawn: Arc::new(Tasks {
            handle: Handle::current(),
            jobs: Workers::start("test-compute", 1, 2).unwrap(),
        }),
        rng: Arc::new(Counter(AtomicU64::new(1))),
    }
}

#[derive(Debug)]
struct SystemClock(Instant);

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall_unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(since.as_millis()).unwrap()
    }

    fn sleep(&self, duration: Duration) -> TaskFuture {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[derive(Debug)]
struct Tasks {
    handle: Handle,
    jobs: Workers,
}

impl Spawn for Tasks {
    fn spawn(&self, _: &'static str, task: TaskFuture) {
        drop(self.handle.spawn(task));
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) {
        self.jobs.submit(0, ClientId::ENGINE, job);
    }
}

/// A source of bytes that no two calls have in common.
#[derive(Debug)]
struct Counter(AtomicU64);

impl Rng for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        let drawn = self.0.fetch_add(1, Ordering::Relaxed);
        for (byte, value) in bytes
            .iter_mut()
            .zip(drawn.to_le_bytes().into_iter().cycle())
        {
            *byte = value;
        }
    }
}
