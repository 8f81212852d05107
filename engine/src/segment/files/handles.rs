//! Handles of open segments.
//!
//! Invariants: at most one handle per segment is live. A bounded number is kept open for the next reader, by last use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use lru::LruCache;
use tokio::sync::OwnedSemaphorePermit;

use super::SegmentFiles;
use crate::extent::SegmentId;
use crate::format::segment::SegmentClass;
use crate::io::FileRef;
use crate::segment::open_files::OpenFile;
use crate::segment::record_check::RecordCheck;
use crate::sync::AtomicBool;

/// The open segments.
#[derive(Debug)]
pub(super) struct Handles {
    pub(super) live: HashMap<SegmentId, Weak<SegmentFile>>,
    /// Kept open for the next reader, by last use. The bound is an argument of each use.
    pub(super) kept: LruCache<SegmentId, Arc<SegmentFile>>,
}

impl Default for Handles {
    fn default() -> Self {
        Self {
            live: HashMap::new(),
            kept: LruCache::unbounded(),
        }
    }
}

impl Handles {
    /// Notes a use of `file` and returns the files to close so that at most `max` are kept.
    pub(super) fn touch(&mut self, file: &Arc<SegmentFile>, max: usize) -> Vec<Arc<SegmentFile>> {
        if file.retired.load(Ordering::Acquire) {
            return Vec::new();
        }
        if !self.kept.promote(&file.id) {
            self.kept.put(file.id, Arc::clone(file));
        }
        let mut unused = Vec::new();
        while self.kept.len() > max
            && let Some((_, oldest)) = self.kept.pop_lru()
        {
            unused.push(oldest);
        }
        unused
    }

    pub(super) fn forget(&mut self, id: SegmentId) -> Option<Arc<SegmentFile>> {
        self.kept.pop(&id)
    }
}

/// One open segment.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(super) id: SegmentId,
    pub(super) path: PathBuf,
    pub(super) file: FileRef,
    pub(super) retired: AtomicBool,
    pub(super) home: Weak<SegmentFiles>,
    /// Its class; `None` if its header does not hold.
    pub(super) class: Option<SegmentClass>,
    /// The check of a dedicated segment's record, without its payload.
    pub(super) record_check: RecordCheck,
    pub(super) _counted: OpenFile,
}

impl SegmentFile {
    /// Returns its id.
    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    /// Returns its path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the check that frame and table of a dedicated segment belong to its blob.
    pub(in crate::segment) fn record_check(&self) -> &RecordCheck {
        &self.record_check
    }

    /// Returns the open file.
    pub(crate) fn file(&self) -> &dyn crate::io::File {
        self.file.as_ref()
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else {
            return;
        };
        let mut handles = home.handles.lock();
        // A handle that lost the race to be kept is not the one in the list.
        if handles
            .live
            .get(&self.id)
            .is_some_and(|weak| weak.strong_count() == 0)
        {
            handles.live.remove(&self.id);
        }
        drop(handles);
        if *self.retired.get_mut() {
            home.unlink(self.id);
        }
    }
}

/// A segment that an upload has open for writing. When it drops, its descriptor is free for another upload.
#[derive(Debug)]
pub(crate) struct WrittenFile {
    pub(super) file: Arc<SegmentFile>,
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) permit: OwnedSemaphorePermit,
}

impl WrittenFile {
    /// Returns the segment.
    pub(crate) fn file(&self) -> &Arc<SegmentFile> {
        &self.file
    }
}

impl Drop for WrittenFile {
    fn drop(&mut self) {
        if let Some(files) = self.file.home.upgrade() {
            let kept = files.handles.lock().forget(self.file.id);
            drop(kept);
        }
    }
}
