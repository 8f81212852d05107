//! Removals of segment files: those under way, and the one due when an upload ends without a commit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::SegmentFiles;
use crate::extent::SegmentId;
use crate::sync::{AtomicU64, Notify};

/// The removals of files that are under way.
#[derive(Debug, Default)]
pub(super) struct Unlinking {
    pub(super) count: AtomicU64,
    pub(super) ended: Notify,
}

impl Unlinking {
    pub(super) fn begin(self: &Arc<Self>) -> Removal {
        self.count.fetch_add(1, Ordering::AcqRel);
        Removal(Arc::clone(self))
    }
}

/// A removal under way; it ends when this drops, whether or not it succeeded.
#[derive(Debug)]
pub(super) struct Removal(Arc<Unlinking>);

impl Drop for Removal {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_waiters();
    }
}

/// Unlinks a dedicated segment that was never committed, when it drops.
#[derive(Debug)]
pub(crate) struct AbandonGuard {
    files: Option<Arc<SegmentFiles>>,
    id: SegmentId,
}

impl AbandonGuard {
    /// Creates a guard of the segment `id`.
    pub(crate) fn new(files: Arc<SegmentFiles>, id: SegmentId) -> Self {
        Self {
            files: Some(files),
            id,
        }
    }

    /// Keeps the segment: a durable transaction names it, or may name it (its outcome is not known).
    pub(crate) fn keep(mut self) {
        self.files = None;
    }
}

impl Drop for AbandonGuard {
    fn drop(&mut self) {
        if let Some(files) = self.files.take() {
            files.retire(self.id);
        }
    }
}
