//! A clock that counts only the time in which the process runs.
//!
//! Owns: [`RunningClock`], which measures every time limit of a client, and [`Alarm`]. While a process is stopped
//! (SIGSTOP, a frozen container, a stalled machine), it reads nothing from its clients. When it continues, system
//! timers fire at once. So a limit measured by system time would reject clients that are not late.
//! Refuses: the time of day, and durations that are only measured.
//!
//! Invariants: the clock is monotonic; an interval longer than [`GAP_MIN`] between two readings counts as [`TICK`].

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

/// Longest interval between two readings while the process runs.
const TICK: Duration = Duration::from_millis(250);
/// In a longer interval between two readings the process did not run.
const GAP_MIN: Duration = Duration::from_millis(500);

/// A clock that stands still while the process does not run. It is cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RunningClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Instant,
    readings: Mutex<Readings>,
    /// The last reading, in microseconds.
    recent_us: AtomicU64,
}

/// The state of the clock. `last` is the system's time of the last reading since `origin`; `stopped` is the part of it
/// that does not count.
#[derive(Debug, Default)]
struct Readings {
    last: Duration,
    stopped: Duration,
}

/// The error that a time limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl RunningClock {
    /// Starts a clock at zero, and the task that reads it regularly. Both end with the last clone.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared {
            origin: Instant::now(),
            readings: Mutex::default(),
            recent_us: AtomicU64::new(0),
        });
        let ticked = Arc::downgrade(&shared);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                match ticked.upgrade() {
                    Some(shared) => drop(shared.read()),
                    None => return,
                }
            }
        });
        Self(shared)
    }

    /// Returns the time that the process ran since the clock was started.
    pub(crate) fn now(&self) -> Duration {
        self.0.read()
    }

    /// Returns the last reading, at most [`TICK`] old. It is cheaper than [`Self::now`], for very frequent use.
    pub(crate) fn recent(&self) -> Duration {
        Duration::from_micros(self.0.recent_us.load(Ordering::Relaxed))
    }

    /// Returns the time, or one up to [`TICK`] later, as cheaply as [`Self::recent`]. A limit that is counted from it
    /// may end late, but not early.
    pub(crate) fn coarse(&self) -> Duration {
        self.recent().saturating_add(TICK)
    }

    /// Returns an alarm that resolves after `duration` of this clock.
    pub(crate) fn alarm(&self, duration: Duration) -> Alarm {
        self.alarm_at(self.now().saturating_add(duration))
    }

    /// Returns an alarm that resolves once this clock shows `until`.
    pub(crate) fn alarm_at(&self, until: Duration) -> Alarm {
        let left = until.saturating_sub(self.now());
        Alarm {
            clock: self.clone(),
            until,
            timer: Box::pin(tokio::time::sleep(left)),
        }
    }

    /// Returns the time of this clock that hyper calls `deadline`.
    pub(crate) fn time_of(&self, deadline: std::time::Instant) -> Duration {
        deadline.saturating_duration_since(self.0.origin.into_std())
    }

    /// Waits for `work`, at most for `limit`. A result that is ready when the limit is reached is still returned.
    pub(crate) async fn timeout<F: Future>(
        &self,
        limit: Duration,
        work: F,
    ) -> Result<F::Output, Elapsed> {
        let mut work = pin!(work);
        let mut alarm = self.alarm(limit);
        tokio::select! {
            biased;
            done = work.as_mut() => Ok(done),
            () = &mut alarm => Err(Elapsed),
        }
    }
}

impl Shared {
    fn read(&self) -> Duration {
        let mut readings = self.readings.lock();
        // Read under the lock, so that a late reader does not look like a gap.
        let real = self.origin.elapsed().max(readings.last);
        let since = real.saturating_sub(readings.last);
        if since > GAP_MIN {
            readings.stopped += since.saturating_sub(TICK);
        }
        readings.last = real;
        let now = real.saturating_sub(readings.stopped);
        let now_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.recent_us.store(now_us, Ordering::Relaxed);
        now
    }
}

/// Resolves when its clock shows the time it was set to.
#[derive(Debug)]
pub(crate) struct Alarm {
    clock: RunningClock,
    until: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Alarm {
    /// Sets the alarm to another time. A later time costs nothing before the system's timer fires.
    pub(crate) fn set(&mut self, until: Duration) {
        let earlier = until < self.until;
        self.until = until;
        if earlier {
            self.restart_timer();
        }
    }

    fn restart_timer(&mut self) {
        let left = self.until.saturating_sub(self.clock.now());
        self.timer.as_mut().reset(Instant::now() + left);
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            if self.clock.now() >= self.until {
                return Poll::Ready(());
            }
            self.restart_timer();
        }
    }
}

/// Provides the clock to hyper, for its limit on the answer to a ping. Heads have a timer of their own.
impl hyper::rt::Timer for RunningClock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(self.alarm(duration))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(self.alarm_at(self.time_of(deadline)))
    }

    fn now(&self) -> std::time::Instant {
        self.0.origin.into_std() + RunningClock::now(self)
    }
}

impl hyper::rt::Sleep for Alarm {}

/// Lets `time` pass on tokio's paused clock, in steps that a [`RunningClock`] does not take for gaps.
#[cfg(test)]
pub(crate) async fn pass(time: Duration) {
    let step = GAP_MIN / 5;
    for _ in 0..time.as_nanos() / step.as_nanos() {
        tokio::time::advance(step).await;
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use hyper::rt::Timer as _;

    use super::*;

    const STOP: Duration = Duration::from_hours(1);

    /// Guards: time in which the process did not run does not count, neither for the clock and its limits nor for
    /// hyper's.
    #[tokio::test(start_paused = true)]
    async fn time_of_a_stopped_process_does_not_count() {
        let clock = RunningClock::start();
        let limit = Duration::from_secs(10);
        let mut ours = pin!(clock.timeout(limit, std::future::pending::<()>()));
        let deadline = hyper::rt::Timer::now(&clock) + limit;
        let (mut sleep, mut until) = (clock.sleep(limit), clock.sleep_until(deadline));
        let begun = clock.now();
        tokio::time::advance(STOP).await;
        for late in [&mut sleep, &mut until] {
            assert!(late.as_mut().now_or_never().is_none());
        }
        assert!(ours.as_mut().now_or_never().is_none());
        assert!(clock.now().saturating_sub(begun) <= GAP_MIN);
        assert_eq!(ours.await, Err(Elapsed));
        let ran = clock.now().saturating_sub(begun);
        assert!(ran >= limit && ran < limit + GAP_MIN, "{ran:?}");
        sleep.await;
        until.await;
    }

    /// Guards: a result that is ready when the limit is reached is returned; an alarm can be set earlier and later.
    #[tokio::test(start_paused = true)]
    async fn limits_end() {
        let clock = RunningClock::start();
        assert_eq!(clock.timeout(Duration::ZERO, async { 7 }).await, Ok(7));
        let mut alarm = clock.alarm(STOP);
        alarm.set(clock.now() + Duration::from_secs(1));
        (&mut alarm).await;
        assert!(clock.now() >= Duration::from_secs(1) && clock.now() < STOP);
        alarm.set(clock.now() + STOP);
        alarm.await;
        assert!(clock.now() >= STOP);
    }
}
