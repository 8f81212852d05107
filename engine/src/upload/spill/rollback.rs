//! Rolling back bytes that were written.
//!
//! Invariants: no write of later bytes is in flight when the payload ends before them.

use super::Spill;
use crate::error::{Error, Result};
use crate::in_flight::InFlight;

impl Spill {
    /// Settles before [`Spill::roll_back_to`] to `length`. Unlike [`Spill::settle`], it drops a write of later bytes
    /// that found no space, or was not attempted, instead of repeating it.
    ///
    /// After an error that the upload survives, and if it is given up, no write was dropped: the bytes still count.
    pub(in crate::upload) async fn settle_for_rollback(&mut self, length: u64) -> Result<()> {
        let is_needless = |error: &Error| error.is_no_space() || error.is_not_attempted();
        match self.settle_finish().await {
            Err(error) if !is_needless(&error) || self.is_sync_failed() => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let later = self.writes.iter().filter(|write| write.offset >= length);
        let later = later.count();
        self.settle_writes(later).await?;
        self.end_writes().await;
        self.settle_sync().await?;
        // Nothing waits or is repeated from here on.
        while let Some(write) = self.writes.pop_back() {
            if let Some(InFlight::Done(Some(Err(error)))) = write.work
                && !is_needless(&error)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Rolls back to `length` bytes, after [`Spill::settle_for_rollback`]. Bytes after it will be written again, and a
    /// checkpoint that named them is replaced before.
    ///
    /// # Panics
    /// If an operation is in flight.
    pub(in crate::upload) fn roll_back_to(&mut self, length: u64) {
        assert!(
            self.writes.is_empty() && self.syncing.is_none(),
            "an upload goes back while bytes are on their way"
        );
        self.finished = None;
        self.written = self.written.min(length);
        self.synced = self.synced.min(length);
        self.sync_started = self.sync_started.min(length);
    }
}
