//! Where bytes are: the newtypes every other module speaks.
//!
//! Owns: [`SegmentId`], [`VolumeId`], [`Lsn`], [`Extent`], [`Layout`].
//! Refuses: knowing what the bytes mean.

use std::fmt;

/// Number of a segment file. Never reused within a store, not even by a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// Number of a volume (a directory on its own drive). Always 0 today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VolumeId(pub u16);

/// Log sequence number: the position of a transaction in the journal. Grows, may skip, is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// How the payload at an extent is framed, which tells where its checksum table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Frame and table stand before the payload: written in one go, length known (shared segments).
    Leading,
    /// Table and frame stand behind the payload: written as it streamed in (dedicated segments).
    Trailing,
}

/// A run of payload bytes: volume, segment, offset of the first byte, length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Volume that holds the segment.
    pub volume: VolumeId,
    /// Segment that holds the bytes.
    pub segment: SegmentId,
    /// Offset of the first payload byte in the segment file.
    pub offset: u64,
    /// Payload bytes.
    pub length: u64,
    /// Framing around the payload.
    pub layout: Layout,
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "segment {} at {}+{}",
            self.segment, self.offset, self.length
        )
    }
}
