//! Segments: append-only files that hold the bytes of blobs.

/// Unlinks a dedicated segment that was never committed, when dropped.
#[derive(Debug)]
pub struct AbandonGuard;

impl AbandonGuard {
    /// The segment is named by a transaction: it stays.
    pub fn keep(self) {}
}
