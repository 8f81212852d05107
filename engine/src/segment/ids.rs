//! Segment ids: numbers below a durable reservation.
//!
//! Owns: that each number is used once. Refuses: the journal. `commit` reserves the next block when [`SegmentIds::low`]
//! resolves, and raises the limit once that is durable.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::poison::Poison;
use crate::sync::{Mutex, Notify};

/// Ids that one journal transaction reserves.
pub(crate) const RESERVE_IDS: u64 = 1024;

/// The ids that may be used now.
#[derive(Debug)]
pub(crate) struct SegmentIds {
    block: Mutex<Block>,
    raised: Notify,
    low: Notify,
    poison: Arc<Poison>,
}

#[derive(Debug)]
struct Block {
    next: u64,
    limit: u64,
    /// Whether no more ids will be reserved.
    closed: bool,
}

impl SegmentIds {
    /// Creates the ids from `next` on. Recovery passes the end of the reservation for both, because ids below it may
    /// have been used; then it reserves more and raises the limit.
    pub(crate) fn new(next: SegmentId, limit: SegmentId, poison: Arc<Poison>) -> Arc<Self> {
        let block = Mutex::new(Block {
            next: next.0,
            limit: limit.0,
            closed: false,
        });
        Arc::new(Self {
            block,
            raised: Notify::new(),
            low: Notify::new(),
            poison,
        })
    }

    /// Returns the next id; waits while all reserved ones are used.
    ///
    /// # Errors
    /// If the store is poisoned, and if none is left and the store is closing.
    pub(crate) async fn take(&self) -> Result<SegmentId> {
        loop {
            let mut raised = std::pin::pin!(self.raised.notified());
            raised.as_mut().enable();
            self.poison.check()?;
            let taken = self.try_take()?;
            if self.is_low() {
                self.low.notify_one();
            }
            if let Some(id) = taken {
                return Ok(id);
            }
            raised.await;
        }
    }

    fn try_take(&self) -> Result<Option<SegmentId>> {
        let mut block = self.block.lock();
        if block.next < block.limit {
            let id = SegmentId(block.next);
            block.next += 1;
            return Ok(Some(id));
        }
        if block.closed {
            return Err(Error::Closed);
        }
        Ok(None)
    }

    /// Raises the limit: ids below `limit` are durably reserved.
    pub(crate) fn raise(&self, limit: SegmentId) {
        let mut block = self.block.lock();
        block.limit = block.limit.max(limit.0);
        drop(block);
        self.raised.notify_waiters();
    }

    /// Ends all waiting: no more ids will be reserved.
    pub(crate) fn close(&self) {
        self.block.lock().closed = true;
        self.raised.notify_waiters();
    }

    /// Returns the first id that is not reserved.
    pub(crate) fn limit(&self) -> SegmentId {
        SegmentId(self.block.lock().limit)
    }

    /// Returns whether less than half a block is left.
    pub(crate) fn is_low(&self) -> bool {
        let block = self.block.lock();
        block.limit.saturating_sub(block.next) < RESERVE_IDS / 2
    }

    /// Resolves when ids run low; for the one task that reserves more.
    pub(crate) async fn low(&self) {
        loop {
            if self.is_low() {
                return;
            }
            self.low.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    /// Guards: no id is used twice or above the durable limit, and a waiter continues once the limit is raised.
    #[test]
    fn ids_wait_for_the_reservation() {
        let ids = SegmentIds::new(SegmentId(5), SegmentId(6), Arc::default());
        assert_eq!(ids.take().now_or_never().unwrap().unwrap(), SegmentId(5));
        let mut waiting = Box::pin(ids.take());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(ids.low().now_or_never().is_some());
        ids.raise(SegmentId(6 + RESERVE_IDS));
        assert_eq!(waiting.now_or_never().unwrap().unwrap(), SegmentId(6));
        assert!(ids.low().now_or_never().is_none());
    }

    /// Guards: an upload that waits for an id fails when the store closes, and does not wait forever.
    #[test]
    fn waiting_ends_when_the_store_closes() {
        let ids = SegmentIds::new(SegmentId(5), SegmentId(6), Arc::default());
        ids.close();
        assert_eq!(ids.take().now_or_never().unwrap().unwrap(), SegmentId(5));
        let waited = ids.take().now_or_never().expect("nothing to wait for");
        assert!(matches!(waited, Err(Error::Closed)));
    }
}
