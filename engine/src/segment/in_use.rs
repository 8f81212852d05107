//! Shared segments that must not be removed, although no blob in them is live.
//!
//! Owns: [`SegmentsInUse`]. A segment is in use while an appender writes to it, and while bytes in it wait for a
//! commit.
//!
//! Invariant: a segment that is not in use never comes into use again, because an appender takes a new one. So once it
//! is not, and the durable state has no live blob in it, no commit can place one there.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::extent::SegmentId;
use crate::sync::Mutex;

/// The segments in use. Share by `Arc`.
#[derive(Debug, Default)]
pub(crate) struct SegmentsInUse(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    in_use: BTreeSet<SegmentId>,
    /// Those that are no longer in use, until they are taken.
    released: BTreeSet<SegmentId>,
}

impl SegmentsInUse {
    /// Marks a new segment as in use until all clones of the result drop.
    pub(super) fn enter(self: &Arc<Self>, id: SegmentId) -> Arc<SegmentInUse> {
        let new = self.0.lock().in_use.insert(id);
        assert!(new, "segment {id} came into use twice");
        Arc::new(SegmentInUse {
            home: Arc::clone(self),
            id,
        })
    }

    /// Returns whether a segment is in use.
    pub(crate) fn contains(&self, id: SegmentId) -> bool {
        self.0.lock().in_use.contains(&id)
    }

    /// Takes the segments whose use has ended since the last call.
    pub(super) fn take_released(&self) -> BTreeSet<SegmentId> {
        std::mem::take(&mut self.0.lock().released)
    }
}

/// Keeps a segment in use until it drops.
#[derive(Debug)]
pub(crate) struct SegmentInUse {
    home: Arc<SegmentsInUse>,
    id: SegmentId,
}

impl Drop for SegmentInUse {
    fn drop(&mut self) {
        let mut ids = self.home.0.lock();
        ids.in_use.remove(&self.id);
        ids.released.insert(self.id);
    }
}
