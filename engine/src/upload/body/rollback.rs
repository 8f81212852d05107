//! Marks of a body, and rolling back to one: bytes after the mark count as never received.
//!
//! Invariants: a body rolls back as a whole or not at all. A log that names bytes which are rolled back is replaced
//! before they are written again.

use super::{Body, BodyStorage, HashState};
use crate::error::Result;
use crate::upload::payload_hash::PayloadHashMark;

/// A point of a body to roll back to.
#[derive(Debug, Clone)]
pub(in crate::upload) struct BodyMark {
    pub(super) payload_hash: PayloadHashMark,
    pieces: usize,
}

impl BodyMark {
    /// Returns the number of bytes before it.
    pub(in crate::upload) fn offset(&self) -> u64 {
        self.payload_hash.mark.length
    }
}

impl Body {
    /// Marks the present offset.
    pub(in crate::upload) async fn mark(&mut self) -> Result<BodyMark> {
        // Submitted first, so that a mark holds no bytes of its own.
        let payload_hash = self.flush().await?.mark();
        let pieces = match &self.storage {
            BodyStorage::Memory(pieces) => pieces.len(),
            BodyStorage::Spilled(_) => 0,
        };
        Ok(BodyMark {
            payload_hash,
            pieces,
        })
    }

    /// Returns where a closing request without an answer began.
    pub(in crate::upload) fn unanswered(&self) -> Option<&BodyMark> {
        self.unanswered.as_ref()
    }

    /// Marks where a closing request begins.
    pub(in crate::upload) async fn mark_close(&mut self) -> Result<BodyMark> {
        let mark = self.mark().await?;
        self.unanswered = Some(mark.clone());
        Ok(mark)
    }

    /// Keeps the bytes that are there, also after a restart; those of the next request follow them.
    pub(in crate::upload) fn keep_unanswered(&mut self) {
        self.unanswered = None;
    }

    /// Rolls back to a mark of this body: bytes after it count as never received.
    pub(in crate::upload) async fn roll_back_to(&mut self, mark: &BodyMark) -> Result<()> {
        self.check()?;
        let outcome = self.try_roll_back_to(mark).await;
        self.fail(outcome)
    }

    async fn try_roll_back_to(&mut self, mark: &BodyMark) -> Result<()> {
        self.settle_hash().await?;
        if let BodyStorage::Spilled(spill) = &mut self.storage {
            // A write in flight must not overwrite later bytes.
            spill.settle_for_rollback(mark.offset()).await?;
        }
        // Nothing waits from here on, so that an upload rolls back as a whole or not at all.
        let HashState::Ready(payload_hash) = &mut self.hash else {
            unreachable!("the hash was waited for")
        };
        if mark.payload_hash.mark.length < payload_hash.length() {
            payload_hash.roll_back_to(&mark.payload_hash);
        }
        self.submitted = mark.payload_hash.mark.length;
        self.tiny.clear();
        (self.pending, self.pending_bytes) = (Vec::new(), 0);
        self.unanswered = None;
        match &mut self.storage {
            BodyStorage::Memory(pieces) => pieces.truncate(mark.pieces),
            BodyStorage::Spilled(spill) => spill.roll_back_to(self.submitted),
        }
        self.release();
        // If this is given up, the next window repeats it.
        if let Some((spill, progress)) = self.spilled()
            && spill.is_log_ahead_of(progress.named())
        {
            spill.record(progress).await?;
        }
        Ok(())
    }
}
