//! The records of a shared segment, read to be copied.
//!
//! Owns: [`RecordScan`], which joins the walk and the check of each record that is read. Refuses: knowing which of them
//! are live (index).
//!
//! Invariants: what is returned was checked in this read, and its checksums are those that are stored. Memory is
//! bounded by one window and one record, which is a copy, so no window is held while the next one waits for memory.

use std::sync::Arc;

use bytes::Bytes;

use super::Segments;
use super::damaged::Damaged;
use super::record_walk::{RecordWalk, WalkedRecord};
use super::uncached::UncachedSegment;
use super::verifier::RecordVerifier;
use crate::error::{Error, Result};
use crate::extent::{Layout, SegmentId};
use crate::format::proof::Proof;
use crate::format::record::RecordPlaces;
use crate::io::Env;

/// A walk over the records of one shared segment.
#[derive(Debug)]
pub(crate) struct RecordScan {
    segment: UncachedSegment,
    /// `None` if the segment's header is not intact: then nothing of it is copied.
    walk: Option<RecordWalk>,
    damaged: Arc<Damaged>,
    env: Env,
}

/// The content of a record, checked.
#[derive(Debug)]
pub(crate) struct RecordContent {
    /// The payload, in pieces.
    pub payload: Vec<Bytes>,
    /// Its chunk checksums, as they are stored.
    pub checksums: Vec<u32>,
}

impl RecordScan {
    /// Opens a segment and starts at its first record.
    pub(super) async fn open(segments: &Segments, id: SegmentId) -> Result<Self> {
        let mut segment = segments.open_uncached(id).await?;
        let walk = segments.walk(&mut segment, u64::MAX).await?;
        Ok(Self {
            segment,
            walk,
            damaged: Arc::clone(segments.damaged()),
            env: segments.files().env().clone(),
        })
    }

    /// Returns whether the segment's header is intact.
    pub(crate) fn has_header(&self) -> bool {
        self.walk.is_some()
    }

    /// Takes the number of bytes that were read from the file since the last call.
    pub(crate) fn take_read_bytes(&mut self) -> u64 {
        self.segment.take_read_bytes()
    }

    /// Returns the next record; `None` at the end. A dedicated segment has none for it, because it is never compacted.
    pub(crate) async fn next(&mut self) -> Result<Option<WalkedRecord>> {
        let Some(walk) = &mut self.walk else {
            return Ok(None);
        };
        let found = walk.next(&mut self.segment).await?;
        Ok(found.filter(|record| record.extent.layout == Layout::Leading))
    }

    /// Reads and checks a record.
    ///
    /// # Errors
    /// As those of [`RecordVerifier`]: [`Error::Corrupt`] if the bytes on the drive are wrong.
    pub(crate) async fn read(&mut self, record: &WalkedRecord) -> Result<RecordContent> {
        let WalkedRecord { digest, extent } = *record;
        let verifier = RecordVerifier::new(digest, extent, false);
        let path = self.segment.path();
        let mut verifier = verifier.map_err(|what| Error::corrupt(path, extent.offset, what.0))?;
        verifier.begin(&mut self.segment).await?;
        let checksums = verifier.checksums().to_vec();
        let mut payload = Vec::new();
        while let Some(window) = verifier.step(&mut self.segment, &self.env).await? {
            payload.push(Bytes::copy_from_slice(&window));
        }
        Ok(RecordContent { payload, checksums })
    }

    /// Marks what such an error found, because the blob is still in this place.
    pub(crate) fn mark(&self, record: &WalkedRecord, error: &Error) {
        let WalkedRecord { digest, extent } = *record;
        let (damaged, proof) = (&self.damaged, Proof::Drive);
        if matches!(error, Error::Corrupt(_)) {
            damaged.mark_wrong_until(digest, extent, proof);
        } else if let Ok(places) = RecordPlaces::of(&extent) {
            let span = places.frame..places.end;
            damaged.mark_unreadable_until(digest, extent, span, proof);
        }
    }
}
