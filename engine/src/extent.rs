//! The location of bytes on disk, and the position of a transaction in the journal.
//!
//! Owns: [`SegmentId`], [`VolumeId`], [`Lsn`], [`Extent`], [`Layout`]. Refuses: knowing what the bytes mean.

use std::fmt;

/// The number of a segment file. Never reused within a store, not even by a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// The number of a volume (a directory on its own drive). Always 0 today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VolumeId(pub u16);

/// The log sequence number: the position of a transaction in the journal. It grows, may skip, and is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// How the payload at an extent is framed, which determines where its checksum table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Frame and table precede the payload, whose length is known when it is written (shared segments).
    Leading,
    /// Table and frame follow the payload, which was written as it streamed in (dedicated segments).
    Trailing,
}

/// A contiguous range of payload bytes: volume, segment, offset of the first byte, length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Volume that holds the segment.
    pub volume: VolumeId,
    /// Segment that holds the bytes.
    pub segment: SegmentId,
    /// Offset of the first payload byte in the segment file.
    pub offset: u64,
    /// Length of the payload in bytes.
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
