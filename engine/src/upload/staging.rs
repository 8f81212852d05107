//! Memory for bytes of uploads that are neither hashed and written nor finished.
//!
//! Owns: one budget for all uploads, and each one's share. Refuses: waiting; who gets nothing spills
//! and goes on with one piece at a time, so idle uploads cannot stop others.

use crate::sync::Mutex;
use std::sync::Arc;

/// The budget. Share by `Arc`.
#[derive(Debug)]
pub(super) struct StagingBudget {
    left: Mutex<u64>,
}

impl StagingBudget {
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            left: Mutex::new(bytes),
        })
    }

    /// A share of nothing yet.
    pub(super) fn share(self: &Arc<Self>) -> Staged {
        Staged {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }
}

/// What one upload has of the budget; given back on drop.
#[derive(Debug)]
pub(super) struct Staged {
    budget: Arc<StagingBudget>,
    bytes: u64,
}

impl Staged {
    /// Takes `bytes` more, if they are left.
    pub(super) fn try_add(&mut self, bytes: u64) -> bool {
        let mut left = self.budget.left.lock();
        let enough = *left >= bytes;
        if enough {
            *left -= bytes;
            self.bytes += bytes;
        }
        enough
    }

    /// Gives back what is above `bytes`.
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

    /// Guards: the budget is never exceeded and comes back whole.
    #[test]
    fn shares_come_back() {
        let budget = StagingBudget::new(10);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.try_add(8));
        assert!(!second.try_add(3));
        first.release_to(5);
        assert!(second.try_add(5));
        drop((first, second));
        assert_eq!(*budget.left.lock(), 10);
    }
}
