//! A byte budget over time.
//!
//! Owns: [`Pace`]. Refuses: reading a clock and waiting.

use std::time::Duration;

/// Time without reading that counts for later, at most. So a pass that was paused does not catch up.
const BURST: Duration = Duration::from_secs(1);

/// Spreads bytes over time, at a rate. The budget may be exceeded by what is spent at once; later bytes wait longer.
#[derive(Debug)]
pub struct Pace {
    /// Bytes in a second; `None` without a limit.
    rate: Option<u64>,
    /// When everything spent so far is within the budget.
    even_at: Duration,
}

impl Pace {
    /// Creates a budget of `rate` bytes in a second from `now` on; 0 is no limit.
    pub fn new(rate: u64, now: Duration) -> Self {
        Self {
            rate: (rate > 0).then_some(rate),
            even_at: now,
        }
    }

    /// Counts bytes that were read or received. Returns how long to wait before the next are.
    pub fn spend(&mut self, bytes: u64, now: Duration) -> Duration {
        let Some(rate) = self.rate else {
            return Duration::ZERO;
        };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let earliest = now.saturating_sub(BURST);
        self.even_at = self.even_at.max(earliest).saturating_add(cost);
        self.even_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Guards: over any time the rate holds, whatever the pieces are; idle time counts for one second at most; 0 is no
    /// limit.
    #[test]
    fn bytes_are_spread_over_time() {
        let mut pace = Pace::new(100, SECOND);
        assert_eq!(pace.spend(50, SECOND), SECOND / 2);
        assert_eq!(pace.spend(300, SECOND * 3 / 2), 3 * SECOND);
        // After a long time without reading.
        assert_eq!(pace.spend(100, 100 * SECOND), Duration::ZERO);
        assert_eq!(pace.spend(100, 100 * SECOND), SECOND);
        assert_eq!(Pace::new(0, SECOND).spend(u64::MAX, SECOND), Duration::ZERO);
    }
}
