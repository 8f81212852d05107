//! The real world behind the engine's seam: tokio's tasks and timers, the system's clocks and randomness.
//!
//! Owns: [`env()`], and the threads that hash.
//! Refuses: the disk, which is the engine's ([`seam::native`]); starting a runtime, which is the program's.
//!
//! Computations have threads of their own, as many as the machine has processors, and not tokio's blocking
//! pool: that one grows to 512 threads, so that many uploads hashing at once take the processors from the
//! workers that answer requests. What does not fit waits in the queue. Measured on 2 processors (busy with
//! other work too): an empty job there and back 6 to 8 us against 17 to 27 us; while 64 streams compute
//! 0.5 ms jobs, in the same total time, a timer of 1 ms fires after 2.8 to 4.6 ms (p99) against 41 to 46 ms.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tonnage_engine::io::{self as seam, Clock, Env, Rng, Spawn, TaskFuture, Workers};

use crate::clock::RunningClock;

/// The real environment: tasks go to the tokio runtime this is called in (a panic where there is none).
/// Call it once for a store: each has its own threads for the disk and for computations. An error if they cannot be started.
pub fn env() -> io::Result<Env> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    Ok(Env {
        io: seam::native()?,
        clock: Arc::new(RunningClock::start()),
        spawn: Arc::new(Tasks {
            handle: Handle::current(),
            jobs: Workers::start("tonnage-compute", processors, processors)?,
        }),
        rng: Arc::new(SystemRng),
    })
}

/// Leases, and the time for which unfinished uploads are kept, count only while the process runs.
impl Clock for RunningClock {
    fn monotonic(&self) -> Duration {
        self.now()
    }

    fn wall_unix_ms(&self) -> u64 {
        // A clock set before 1970 reads as 1970: it orders nothing.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, duration: Duration) -> TaskFuture {
        Box::pin(self.alarm(duration))
    }
}

#[derive(Debug)]
struct Tasks {
    handle: Handle,
    jobs: Workers,
}

impl Spawn for Tasks {
    fn spawn(&self, name: &'static str, task: TaskFuture) {
        self.handle.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(
                    task = name,
                    "a background task ended in a panic; restart the server"
                );
            }
        });
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) {
        self.jobs.submit(0, job);
    }
}

#[derive(Debug)]
struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(why) = getrandom::fill(bytes) {
            unreachable!("the system has no randomness ({why}), which Linux rules out after boot");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    }

    /// Guards: a computation's result comes back, a panicking one yields none, and neither ends the pool.
    #[test]
    fn computations_return_and_survive_a_panic() {
        runtime().block_on(async {
            let env = env().unwrap();
            for _ in 0..8 {
                assert_eq!(env.compute(|| -> u32 { panic!("on purpose") }).await, None);
            }
            assert_eq!(env.compute(|| 6 * 7).await, Some(42));
        });
    }

    /// Guards: tasks run on the runtime, time moves forward, and randomness differs between calls.
    #[test]
    fn tasks_clock_and_randomness_are_real() {
        runtime().block_on(async {
            let env = env().unwrap();
            let (done, ended) = tokio::sync::oneshot::channel();
            let clock = Arc::clone(&env.clock);
            let before = env.clock.monotonic();
            env.spawn.spawn(
                "test",
                Box::pin(async move {
                    clock.sleep(Duration::from_millis(2)).await;
                    done.send(clock.monotonic()).unwrap();
                }),
            );
            assert!(ended.await.unwrap() >= before + Duration::from_millis(2));
            let (mut one, mut other) = ([0; 16], [0; 16]);
            env.rng.fill(&mut one);
            env.rng.fill(&mut other);
            assert_ne!(one, other);
            assert!(env.clock.wall_unix_ms() > 1_600_000_000_000);
        });
    }
}
