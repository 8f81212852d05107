//! A count of the bytes that a connection moved in the last seconds.
//!
//! Owns: [`RecentBytes`]: the bytes of the current period and of the one before. Two threads that count at the same
//! moment may lose some.

use std::sync::atomic::{AtomicU64, Ordering};

/// Length of a period.
const PERIOD_US: u64 = 4_000_000;

/// A count of bytes over the last one to two periods.
#[derive(Debug, Default)]
pub(super) struct RecentBytes {
    period: AtomicU64,
    bytes: AtomicU64,
    before: AtomicU64,
}

impl RecentBytes {
    pub(super) fn add(&self, bytes: usize, now_us: u64) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let period = now_us / PERIOD_US;
        let passed = period.saturating_sub(self.period.load(Ordering::Relaxed));
        if passed == 0 {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            return;
        }
        let last = self.bytes.swap(bytes, Ordering::Relaxed);
        let before = if passed == 1 { last } else { 0 };
        self.before.store(before, Ordering::Relaxed);
        self.period.store(period, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self, now_us: u64) -> u64 {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let passed = (now_us / PERIOD_US).saturating_sub(self.period.load(Ordering::Relaxed));
        match passed {
            0 => bytes.saturating_add(self.before.load(Ordering::Relaxed)),
            1 => bytes,
            _ => 0,
        }
    }
}
