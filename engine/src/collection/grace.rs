//! For which transactions grace is over.
//!
//! Owns: [`GraceClock`], which maps time to LSNs. Refuses: reading a clock. It is given times of the engine's clock,
//! which stands still while the process does not run. So a suspended server uses up no grace, and for what was
//! committed before the start, grace begins at the start.

use std::collections::VecDeque;
use std::time::Duration;

use crate::extent::Lsn;

/// Most observations that are kept. Further ones are left out, which makes grace longer by at most a 256th.
const OBSERVATIONS_MAX: u32 = 256;

/// Remembers which transactions were durable when.
#[derive(Debug)]
pub(crate) struct GraceClock {
    grace: Duration,
    /// Times, with the last transaction that was durable then; ascending.
    observed: VecDeque<(Duration, Lsn)>,
    due: Lsn,
}

impl GraceClock {
    /// Creates a clock without observations: grace is over for nothing.
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            grace,
            observed: VecDeque::new(),
            due: Lsn(0),
        }
    }

    /// Returns the last transaction for which grace is over at `now`, and records that `durable` is the last durable
    /// one.
    pub(crate) fn observe(&mut self, now: Duration, durable: Lsn) -> Lsn {
        while let Some((time, lsn)) = self.observed.front()
            && *time + self.grace <= now
        {
            self.due = *lsn;
            self.observed.pop_front();
        }
        let spacing = self.grace / OBSERVATIONS_MAX;
        let last = self.observed.back();
        if last.is_none_or(|(time, lsn)| *lsn < durable && *time + spacing <= now) {
            self.observed.push_back((now, durable));
        }
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Guards: grace is never shorter than it says, neither for a transaction between two observations nor for one from
    /// before the first, and it ends.
    #[test]
    fn grace_is_counted_from_the_next_observation() {
        let mut clock = GraceClock::new(10 * SECOND);
        assert_eq!(clock.observe(100 * SECOND, Lsn(7)), Lsn(0));
        assert_eq!(clock.observe(103 * SECOND, Lsn(9)), Lsn(0));
        assert_eq!(clock.observe(109 * SECOND, Lsn(9)), Lsn(0));
        assert_eq!(clock.observe(110 * SECOND, Lsn(9)), Lsn(7));
        assert_eq!(clock.observe(112 * SECOND, Lsn(9)), Lsn(7));
        assert_eq!(clock.observe(113 * SECOND, Lsn(9)), Lsn(9));
    }

    /// Guards: however often it observes, it keeps few observations, and grace ends almost in time.
    #[test]
    fn observations_are_bounded() {
        let mut clock = GraceClock::new(256 * SECOND);
        let mut due = Lsn(0);
        for tick in 0..100_000 {
            due = clock.observe(tick * SECOND / 10, Lsn(u64::from(tick)));
            assert!(clock.observed.len() <= OBSERVATIONS_MAX as usize + 1);
        }
        assert!(due >= Lsn(99_999 - 2_560 - 20));
    }
}
