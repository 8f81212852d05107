//! The rate at which a repair receives.
//!
//! Owns: [`Pace`], and its clock.

use std::time::Duration;

use crate::clock::{Alarm, RunningClock};

/// Time without receiving that counts for later, at most. So a repair that was paused does not catch up.
const BURST: Duration = Duration::from_secs(1);

/// Spreads bytes over time. The rate may be exceeded by what is received at once; later bytes wait longer.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes in a second; 0 is no limit.
    rate: u64,
    clock: RunningClock,
    /// When everything received so far is within the rate.
    even_at: Duration,
}

impl Pace {
    /// Creates a pace of `rate` bytes in a second; 0 is no limit.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn new(rate: u64) -> Self {
        let clock = RunningClock::start();
        Self {
            rate,
            even_at: clock.now(),
            clock,
        }
    }

    /// Counts bytes that were received. Returns what to wait for before the next are, if they are too early.
    pub(super) fn spend(&mut self, bytes: u64) -> Option<Alarm> {
        let nanos = (u128::from(bytes) * 1_000_000_000).checked_div(u128::from(self.rate))?;
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = self.clock.now();
        let earliest = now.saturating_sub(BURST);
        self.even_at = self.even_at.max(earliest).saturating_add(cost);
        (self.even_at > now).then(|| self.clock.alarm_at(self.even_at))
    }
}
