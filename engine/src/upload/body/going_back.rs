//! Marks of a body, and going back to one: what came after it was never received.
//!
//! Invariants: a body goes back as a whole or not at all. A log that names bytes which are taken back is replaced before they
//! are written again.

use super::{Body, Kept, Work};
use crate::error::Result;
use crate::upload::digestion::DigestionMark;

/// A point of a body to go back to.
#[derive(Debug, Clone)]
pub(in crate::upload) struct BodyMark {
    pub(super) digestion: DigestionMark,
    pieces: usize,
}

impl BodyMark {
    /// Bytes before it.
    pub(in crate::upload) fn offset(&self) -> u64 {
        self.digestion.mark.length
    }
}

impl Body {
    /// Remembers where we are.
    pub(in crate::upload) async fn mark(&mut self) -> Result<BodyMark> {
        // Submitted, so that a mark holds no bytes of its own.
        let digestion = self.flush().await?.mark();
        let pieces = match &self.kept {
            Kept::Memory(pieces) => pieces.len(),
            Kept::Spilled(_) => 0,
        };
        Ok(BodyMark { digestion, pieces })
    }

    /// Where a closing request began that has no answer.
    pub(in crate::upload) fn unanswered(&self) -> Option<&BodyMark> {
        self.unanswered.as_ref()
    }

    /// Remembers where a closing request begins.
    pub(in crate::upload) async fn mark_close(&mut self) -> Result<BodyMark> {
        let mark = self.mark().await?;
        self.unanswered = Some(mark.clone());
        Ok(mark)
    }

    /// The bytes that are there stay, also over a restart, and the next request's follow them.
    pub(in crate::upload) fn keep_unanswered(&mut self) {
        self.unanswered = None;
    }

    /// Goes back to a mark of this body: what came after it was never received.
    pub(in crate::upload) async fn back_to(&mut self, mark: &BodyMark) -> Result<()> {
        self.check()?;
        let outcome = self.try_back_to(mark).await;
        self.fail(outcome)
    }

    async fn try_back_to(&mut self, mark: &BodyMark) -> Result<()> {
        self.settle_hash().await?;
        if let Kept::Spilled(spill) = &mut self.kept {
            // A write still on its way must not land on top of what comes next.
            spill.settle_for(mark.offset()).await?;
        }
        // From here on nothing waits: an upload goes back as a whole or not at all.
        let Work::Ready(digestion) = &mut self.work else {
            unreachable!("the hash was waited for")
        };
        if mark.digestion.mark.length < digestion.length() {
            digestion.back_to(&mark.digestion);
        }
        self.submitted = mark.digestion.mark.length;
        self.tiny.clear();
        (self.pending, self.pending_bytes) = (Vec::new(), 0);
        self.unanswered = None;
        match &mut self.kept {
            Kept::Memory(pieces) => pieces.truncate(mark.pieces),
            Kept::Spilled(spill) => spill.back_to(self.submitted),
        }
        self.release();
        // Given up here, the next window makes up for it.
        if let Some((spill, progress)) = self.spilled()
            && spill.is_log_ahead_of(progress.named())
        {
            spill.record(progress).await?;
        }
        Ok(())
    }
}
