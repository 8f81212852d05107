//! The time limit on the head of a request on HTTP/1.1.
//!
//! Owns: [`HeadTimer`], the timer that hyper gets for one connection. hyper creates a timer before each head and drops
//! it after. This one keeps its alarm from one head to the next, so that most requests do not change the runtime's list
//! of timers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;

use crate::clock::{Alarm, RunningClock};

/// The timer of one connection, which reads one head at a time.
#[derive(Debug)]
pub(super) struct HeadTimer {
    clock: RunningClock,
    /// `None` before the first head. Between two heads it may still wake the connection, once and for nothing.
    alarm: Arc<Mutex<Option<Alarm>>>,
}

/// The limit on the head that is being read.
#[derive(Debug)]
struct HeadLimit(Arc<Mutex<Option<Alarm>>>);

impl HeadTimer {
    pub(super) fn new(clock: &RunningClock) -> Self {
        Self {
            clock: clock.clone(),
            alarm: Arc::default(),
        }
    }

    fn limit(&self, until: Duration) -> Pin<Box<dyn Sleep>> {
        let mut alarm = self.alarm.lock();
        match &mut *alarm {
            Some(alarm) => alarm.set(until),
            None => *alarm = Some(self.clock.alarm_at(until)),
        }
        Box::pin(HeadLimit(Arc::clone(&self.alarm)))
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.limit(self.clock.now().saturating_add(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.limit(self.clock.time_of(deadline))
    }

    fn now(&self) -> Instant {
        Timer::now(&self.clock)
    }
}

impl Future for HeadLimit {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.0.lock() {
            Some(alarm) => Pin::new(alarm).poll(cx),
            None => unreachable!("the alarm is set before a limit is returned"),
        }
    }
}

impl Sleep for HeadLimit {}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::clock::pass;

    /// Guards: each head has its own limit, although all have one alarm: neither the limit of the head before ends it,
    /// nor does an alarm that has fired already.
    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_own_limit() {
        let (clock, limit) = (RunningClock::start(), Duration::from_secs(10));
        let timer = HeadTimer::new(&clock);
        for _ in 0..3 {
            let mut head = timer.sleep_until(Timer::now(&timer) + limit);
            assert!(head.as_mut().now_or_never().is_none());
            pass(limit / 2).await;
            assert!(head.as_mut().now_or_never().is_none());
        }
        for _ in 0..2 {
            let mut head = timer.sleep(limit);
            pass(limit / 2).await;
            assert!(head.as_mut().now_or_never().is_none());
            pass(limit).await;
            assert!(head.as_mut().now_or_never().is_some());
        }
        let mut shorter = timer.sleep(limit / 4);
        pass(limit / 2).await;
        assert!(shorter.as_mut().now_or_never().is_some());
    }
}
