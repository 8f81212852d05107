//! Suspending an upload that receives nothing: it frees its memory and its descriptor.
//!
//! Invariants: what is freed was written to disk first, and survives a restart unless it belongs to a close without an
//! answer. Nothing here waits for the descriptor of another upload.

use super::{Body, BodyMark, BodyStorage, HashState};
use crate::error::Result;

impl Body {
    /// Gives the descriptor to an upload that waits for one, so that each writes a window in its turn.
    pub(super) async fn release_descriptor(&mut self) -> Result<()> {
        self.settle_hash().await?;
        if let Some((spill, progress)) = self.spilled() {
            spill.release_descriptor(progress).await?;
        }
        self.release();
        Ok(())
    }

    /// Gives the descriptor away as between two windows, for an upload whose client is slow.
    pub(in crate::upload) async fn release_descriptor_idle(&mut self) -> Result<()> {
        if self.is_failed() {
            return Ok(());
        }
        let outcome = self.release_descriptor().await;
        self.fail(outcome)
    }

    /// Makes everything received survive a restart, except for bytes of a close without an answer.
    pub(in crate::upload) async fn record(&mut self) -> Result<()> {
        // A resumed upload that received no bytes is in its log already.
        if self.offset() == 0 || matches!(self.hash, HashState::Rehash(_)) {
            return Ok(());
        }
        self.flush().await?;
        // If there is no descriptor for a segment, the bytes stay in memory.
        self.spill().await?;
        let recorded = match self.spilled() {
            Some((spill, progress)) => spill.record(progress).await,
            None => Ok(()),
        };
        self.fail(recorded)
    }

    /// Returns whether it has memory or a descriptor that it can free while nothing comes.
    pub(in crate::upload) fn holds(&self) -> bool {
        let behind = matches!(&self.storage, BodyStorage::Spilled(spill) if spill.is_behind());
        // Bytes may exceed the budget ([`Body::stage`]).
        self.is_open() || behind || self.held_bytes() > 0 || !self.staged.is_empty()
    }

    /// Returns whether it has a descriptor.
    pub(in crate::upload) fn is_open(&self) -> bool {
        match &self.storage {
            BodyStorage::Memory(_) => self.opening.is_some(),
            BodyStorage::Spilled(spill) => spill.is_open(),
        }
    }

    /// Frees memory and descriptor. Everything received is then on disk, and survives a restart as [`Body::record`]
    /// says.
    ///
    /// Returns false if it would have to wait for the descriptor of another upload, because that one may have to be
    /// suspended first.
    pub(in crate::upload) async fn suspend(&mut self) -> Result<bool> {
        if self.is_failed() {
            return Ok(true);
        }
        if !self.open_at_once().await? {
            return Ok(false);
        }
        self.record().await?;
        if let BodyStorage::Spilled(spill) = &mut self.storage {
            let closed = spill.close().await;
            self.fail(closed)?;
        }
        self.release();
        Ok(true)
    }

    /// Opens a segment to write what is not recorded, if anything; returns false if no descriptor is free.
    async fn open_at_once(&mut self) -> Result<bool> {
        if let BodyStorage::Spilled(spill) = &mut self.storage {
            let close = self.unanswered.as_ref().map(BodyMark::offset);
            let named = close.unwrap_or(self.submitted);
            let recorded = self.pending_bytes == 0 && spill.is_recorded(self.submitted, named);
            return if recorded {
                Ok(true)
            } else {
                spill.try_reopen().await
            };
        }
        if self.offset() == 0 {
            self.opening = None;
        } else if self.opening.is_some() {
            // Of a request that gave up. It has its permit.
            self.spill_with(None).await?;
        } else {
            let Some(permit) = self.shared.segments.files().try_writer_permit() else {
                return Ok(false);
            };
            self.spill_with(Some(permit)).await?;
        }
        Ok(true)
    }
}
