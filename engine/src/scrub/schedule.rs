//! When a pass begins, and whether it computes digests.
//!
//! Owns: [`Schedule`]. Refuses: reading a clock, randomness and waiting.

use std::time::Duration;

/// Time after an open before the first pass, so that a start is not slower for it.
const FIRST_PAUSE: Duration = Duration::from_mins(10);

/// The passes to come.
///
/// It is not kept over a restart. So the time of the first pass with digests is drawn at random within their cycle: a
/// store that is opened often has them as often as one that stays open.
#[derive(Debug)]
pub(crate) struct Schedule {
    every: Duration,
    digests_every: Duration,
    next: Duration,
    next_digests: Duration,
}

impl Schedule {
    /// Creates the schedule of a store that was opened at `now`; `random` places the first pass with digests.
    pub(crate) fn new(
        every: Duration,
        digests_every: Duration,
        now: Duration,
        random: u32,
    ) -> Self {
        let part = digests_every.mul_f64(f64::from(random) / f64::from(u32::MAX));
        Self {
            every,
            digests_every,
            next: now + FIRST_PAUSE.min(every),
            next_digests: now.saturating_add(part),
        }
    }

    /// Returns how long it is until the next pass.
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now)
    }

    /// Returns whether a pass that begins `now` computes digests.
    pub(crate) fn wants_digests(&self, now: Duration) -> bool {
        self.next_digests <= now
    }

    /// Notes a pass that began at `began`. One that was not complete counts too, so that a cancelled pass does not
    /// begin again at once; but its digests are still wanted.
    pub(crate) fn ended(&mut self, began: Duration, digests: bool, complete: bool) {
        self.next = began.saturating_add(self.every);
        if digests && complete {
            self.next_digests = began.saturating_add(self.digests_every);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    /// Guards: passes begin at most as often as asked; those with digests have a cycle of their own, begin within it
    /// after an open, and are repeated until one is complete.
    #[test]
    fn passes_with_digests_have_a_longer_cycle() {
        let mut schedule = Schedule::new(HOUR, 10 * HOUR, HOUR, u32::MAX / 2);
        assert_eq!(schedule.wait(HOUR), FIRST_PAUSE);
        assert!(!schedule.wants_digests(5 * HOUR));
        assert!(schedule.wants_digests(6 * HOUR));
        schedule.ended(6 * HOUR, true, false);
        assert_eq!(schedule.wait(6 * HOUR), HOUR);
        assert!(schedule.wants_digests(7 * HOUR));
        schedule.ended(7 * HOUR, true, true);
        assert!(!schedule.wants_digests(16 * HOUR));
        assert!(schedule.wants_digests(17 * HOUR));
        assert_eq!(schedule.wait(20 * HOUR), Duration::ZERO);
    }
}
