//! Memory for bytes of uploads that are not yet hashed and written, or finished.
//!
//! Owns: one budget for all uploads, and the share of each. Refuses: waiting. An upload that gets nothing spills and
//! continues with one piece at a time, so idle uploads cannot stop others.
//!
//! Invariant: the last quarter is for small uploads, so that large ones do not push them out of the shared segments.

use crate::sync::Mutex;
use std::sync::Arc;

/// Largest upload, in bytes, that may use the last quarter of the budget. It is stored in a shared segment even if it
/// had to spill.
pub(super) const SMALL_BYTES: u64 = 256 << 10;

/// The budget. Share by `Arc`.
#[derive(Debug)]
pub(super) struct StagingBudget {
    total: u64,
    left: Mutex<u64>,
}

impl StagingBudget {
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            total: bytes,
            left: Mutex::new(bytes),
        })
    }

    /// Returns whether less than half is left.
    pub(super) fn is_short(&self) -> bool {
        *self.left.lock() < self.total / 2
    }

    /// Creates an empty share.
    pub(super) fn share(self: &Arc<Self>) -> Staged {
        Staged {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

/// The share of one upload; returned to the budget when it drops.
#[derive(Debug)]
pub(super) struct Staged {
    budget: Arc<StagingBudget>,
    bytes: u64,
}

impl Staged {
    /// Returns whether it is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Returns its size in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes `bytes` more for an upload that then has `length`, if enough is left for one of that size.
    pub(super) fn try_add(&mut self, bytes: u64, length: u64) -> bool {
        let kept = if length <= SMALL_BYTES {
            0
        } else {
            self.budget.total / 4
        };
        let mut left = self.budget.left.lock();
        let enough = *left >= bytes + kept;
        if enough {
            *left -= bytes;
            self.bytes += bytes;
        }
        enough
    }

    /// Returns what is above `bytes`.
    pub(super) fn release_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        *self.budget.left.lock() += surplus;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.release_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the budget is never exceeded and is returned as a whole.
    #[test]
    fn shares_come_back() {
        let budget = StagingBudget::new(10);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.try_add(8, 8));
        assert!(!second.try_add(3, 3));
        first.release_to(5);
        assert!(second.try_add(5, 5));
        drop((first, second));
        assert_eq!(*budget.left.lock(), 10);
    }

    /// Guards: large uploads leave a quarter to small ones.
    #[test]
    fn large_uploads_leave_room_for_small_ones() {
        let large = SMALL_BYTES + 1;
        let budget = StagingBudget::new(4 * large);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.try_add(3 * large, 3 * large));
        assert!(!first.try_add(1, 3 * large + 1));
        assert!(!second.try_add(large, large));
        assert!(second.try_add(SMALL_BYTES, SMALL_BYTES));
        assert!(budget.is_short());
    }
}
