//! The records of a segment, found by their own frames.
//!
//! Owns: [`RecordWalk`]. Refuses: knowing which records are live (index), and checking them (`verifier`).
//!
//! Invariant: a place without an intact frame is skipped, so that rot hides no record but its own.

use super::uncached::UncachedSegment;
use crate::digest::Digest;
use crate::error::Result;
use crate::extent::{Extent, Layout};
use crate::format::codec::Malformed;
use crate::format::record::{FRAME_BYTES, FoundFrame, RECORD_ALIGN, RecordPlaces, pad64};
use crate::format::segment::{HEADER_BYTES, SegmentClass, SegmentHeader};

/// A record whose frame is intact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WalkedRecord {
    /// The blob that it names.
    pub digest: Digest,
    /// Where the payload is.
    pub extent: Extent,
}

/// A position in a segment.
#[derive(Debug)]
pub(crate) struct RecordWalk {
    class: SegmentClass,
    /// Where the next frame may be.
    at: u64,
    end: u64,
}

impl RecordWalk {
    /// Starts at the first record of a segment whose records end at `end`. The inner error says why the header is not
    /// intact.
    pub(super) async fn start(
        segment: &mut UncachedSegment,
        end: u64,
    ) -> Result<std::result::Result<Self, Malformed>> {
        let header_end = HEADER_BYTES as u64;
        if segment.len() < header_end {
            return Ok(Err(Malformed("the file ends in it".to_owned())));
        }
        let header = segment.window(0..header_end).await?;
        let header = SegmentHeader::decode_of(&header, segment.store(), segment.id());
        let end = end.min(segment.len());
        Ok(header.map(|header| Self {
            class: header.class,
            at: match header.class {
                SegmentClass::Shared => header_end,
                SegmentClass::Dedicated => end.saturating_sub(FRAME_BYTES as u64),
            },
            end,
        }))
    }

    /// Returns the next record; `None` at the end.
    pub(crate) async fn next(
        &mut self,
        segment: &mut UncachedSegment,
    ) -> Result<Option<WalkedRecord>> {
        while self.at + FRAME_BYTES as u64 <= self.end {
            let at = self.at;
            let frame = segment.window(at..at + FRAME_BYTES as u64).await?;
            let found = self.record_at(segment, &frame, at);
            self.at = match (&found, self.class) {
                (_, SegmentClass::Dedicated) => self.end,
                (Some((_, places)), SegmentClass::Shared) => pad64(places.end),
                (None, SegmentClass::Shared) => at + RECORD_ALIGN,
            };
            if let Some((record, _)) = found {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Decodes a frame that must be the one at `at` of this segment.
    fn record_at(
        &self,
        segment: &UncachedSegment,
        frame: &[u8],
        at: u64,
    ) -> Option<(WalkedRecord, RecordPlaces)> {
        let found = FoundFrame::decode(frame).ok()?;
        let layout = match self.class {
            SegmentClass::Shared => Layout::Leading,
            SegmentClass::Dedicated => Layout::Trailing,
        };
        let is_here = segment.store().starts_with(&found.store_head)
            && found.segment == segment.id()
            && found.offset == at
            && found.layout == layout;
        let extent = found.extent().ok().filter(|_| is_here)?;
        let places = RecordPlaces::of(&extent).ok()?;
        let digest = found.digest;
        Some((WalkedRecord { digest, extent }, places))
    }
}
