//! The move of a body from memory to a dedicated segment.
//!
//! Invariants: a request that gives up leaves the next one a segment that is being created, but no permit for a
//! descriptor.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{Body, BodyStorage};
use crate::error::{Error, Result};
use crate::format::upload_log::UploadHeader;
use crate::in_flight::InFlight;
use crate::segment::DedicatedWriter;
use crate::upload::log::LogFile;
use crate::upload::spill::Spill;

impl Body {
    /// Moves to a dedicated segment if the blob is, or is announced to be, large.
    pub(super) async fn spill_if_due(&mut self, more: u64) -> Result<()> {
        let threshold = self.shared.options.spill_threshold_bytes;
        let large = self.offset() + more > threshold
            || self.length_hint.is_some_and(|hint| hint > threshold);
        if large { self.spill().await } else { Ok(()) }
    }

    /// Moves the bytes in memory to a dedicated segment.
    pub(in crate::upload) async fn spill(&mut self) -> Result<()> {
        if matches!(self.storage, BodyStorage::Spilled(_)) {
            return Ok(());
        }
        if self.opening.is_some() {
            return self.spill_with(None).await;
        }
        if let Some(length) = self.length_hint
            && let Err(error) = self.shared.check_announced(length).await
        {
            self.end(&error);
            return Err(error);
        }
        // The wait is not part of the work in flight, so a request that gives up does not keep the permit.
        let permit = self.shared.segments.files().writer_permit().await?;
        self.spill_with(Some(permit)).await
    }

    pub(super) async fn spill_with(&mut self, permit: Option<OwnedSemaphorePermit>) -> Result<()> {
        let writer = self.create_segment(permit).await?;
        let header = UploadHeader {
            store: self.shared.segments.files().store(),
            upload: *self.identity.id.as_bytes(),
            segment: writer.id(),
            created_unix_ms: self.identity.created_unix_ms,
            repository: self.identity.repository.clone(),
            actor: self.identity.actor.clone(),
        };
        let open = self.shared.segments.files().open_files();
        let log = LogFile::new(
            self.shared.env.clone(),
            &self.shared.dir,
            open,
            self.identity.id,
        );
        let mut spill = Spill::new(Arc::clone(&self.shared), writer, header, log);
        spill.set_client(self.client);
        if let BodyStorage::Memory(pieces) = &mut self.storage
            && !pieces.is_empty()
        {
            spill.start_write(0, std::mem::take(pieces));
        }
        self.storage = BodyStorage::Spilled(Box::new(spill));
        Ok(())
    }

    /// Waits for the segment that is being created, or creates one with `permit`.
    async fn create_segment(
        &mut self,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<DedicatedWriter> {
        if let Some(permit) = permit {
            let (segments, hint) = (Arc::clone(&self.shared.segments), self.length_hint);
            self.opening = Some(InFlight::start(async move {
                segments.create_dedicated(permit, hint).await
            }));
        }
        let opened = match &mut self.opening {
            Some(opening) => opening.done().await.take(),
            None => None,
        };
        self.opening = None;
        opened.unwrap_or(Err(Error::Closed))
    }
}
