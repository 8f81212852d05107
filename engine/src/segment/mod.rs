//! Segments: append-only files that hold the bytes of blobs.

/// Unlinks a dedicated segment that was never committed, when dropped.
#[derive(Debug)]
pub struct AbandonGuard;
