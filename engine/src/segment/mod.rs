//! Segments: append-only files that hold the bytes of blobs.
//!
//! Owns: their names, ids and open handles, the two writers and the one reader; [`Segments`] combines them. Refuses: to
//! know which blobs exist (`commit`).
//!
//! Invariants: bytes of an extent never change. An id is never used twice. Space is freed only by unlinking a file that
//! no reader has open.

mod append_queue;
mod appender;
mod damaged;
mod dedicated;
mod files;
mod ids;
mod in_use;
mod mapped;
mod open_files;
mod reader;
mod record_check;
mod record_walk;
mod records;
mod scan_resistance;
#[cfg(test)]
mod tests;
mod uncached;
mod verifier;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, SegmentId};
use crate::io::{Directory, Env};
use crate::memory::ReadPool;
use crate::options::Options;
use crate::poison::Poison;
use crate::sync::{Mutex, oneshot};
use crate::vocabulary::ClientId;
pub(crate) use appender::{Appended, Appender, SmallBlob};
pub(crate) use damaged::{DamageMark, Damaged};
pub(crate) use dedicated::DedicatedWriter;
pub(crate) use files::{AbandonGuard, SegmentFile, SegmentFiles, parse_segment_name, segment_name};
pub(crate) use ids::{RESERVE_IDS, SegmentIds};
pub(crate) use in_use::{SegmentInUse, SegmentsInUse};
pub(crate) use open_files::{OpenFile, OpenFiles, Purpose};
pub(crate) use reader::OpenFailure;
use reader::ReaderContext;
pub use reader::{BlobReader, BlobStream};
pub(crate) use record_walk::{RecordWalk, WalkedRecord};
pub(crate) use records::RecordScan;
use scan_resistance::ScanResistance;
pub(crate) use uncached::UncachedSegment;
pub(crate) use verifier::RecordVerifier;

/// The segments of an open store.
#[derive(Debug)]
pub(crate) struct Segments {
    files: Arc<SegmentFiles>,
    ids: Arc<SegmentIds>,
    appender: Appender,
    in_use: Arc<SegmentsInUse>,
    /// What its readers share.
    context: Arc<ReaderContext>,
    /// Segments whose header was found damaged and logged.
    bad_headers: Mutex<HashSet<SegmentId>>,
}

impl Segments {
    /// Creates the segments of the store with the id `store`, in `dir`, which is open. Starts the appending tasks,
    /// which create no file before the first small blob.
    pub(crate) fn new(
        env: Env,
        dir: Directory,
        store: [u8; 16],
        ids: Arc<SegmentIds>,
        poison: &Arc<Poison>,
        options: &Options,
    ) -> Arc<Self> {
        let clock = Arc::clone(&env.clock);
        let files = SegmentFiles::new(env, dir, store, Arc::clone(poison), options.open_files_max);
        let in_use = Arc::default();
        let appender = Appender::start(&files, &ids, &in_use, poison, options);
        let context = ReaderContext {
            pool: ReadPool::new(options.read_budget_bytes, options.read_stall, clock),
            damaged: Arc::default(),
            scan_resistance: ScanResistance::new(options.page_cache_bytes),
        };
        Arc::new(Self {
            files,
            ids,
            appender,
            in_use,
            context: Arc::new(context),
            bad_headers: Mutex::default(),
        })
    }

    /// Returns the segment files.
    pub(crate) fn files(&self) -> &Arc<SegmentFiles> {
        &self.files
    }

    /// Returns the segment ids.
    pub(crate) fn ids(&self) -> &Arc<SegmentIds> {
        &self.ids
    }

    /// Returns the appender of shared segments.
    pub(crate) fn appender(&self) -> &Appender {
        &self.appender
    }

    /// Returns whether bytes may still be appended to a segment, or committed in it.
    pub(crate) fn is_in_use(&self, id: SegmentId) -> bool {
        self.in_use.contains(id)
    }

    /// Takes the shared segments that are no longer in use since the last call.
    pub(crate) fn take_released(&self) -> BTreeSet<SegmentId> {
        self.in_use.take_released()
    }

    /// Returns the memory for reads.
    pub(crate) fn pool(&self) -> &ReadPool {
        &self.context.pool
    }

    /// Returns the known damage.
    pub(crate) fn damaged(&self) -> &Arc<Damaged> {
        &self.context.damaged
    }

    /// Creates a dedicated segment.
    pub(crate) async fn create_dedicated(
        &self,
        permit: OwnedSemaphorePermit,
        length_hint: Option<u64>,
    ) -> Result<DedicatedWriter> {
        let (files, ids) = (Arc::clone(&self.files), Arc::clone(&self.ids));
        let (done, created) = oneshot::channel();
        // A task of its own, because the caller may be dropped at any moment, and the file would have no owner. A
        // writer that is not received removes its file.
        let task = async move {
            drop(done.send(DedicatedWriter::create(files, &ids, permit, length_hint).await));
        };
        let spawn = &self.files.env().spawn;
        spawn.spawn("create segment", Box::pin(task));
        created.await.unwrap_or(Err(Error::Closed))
    }

    /// Opens the dedicated segment of an upload that survived a restart.
    pub(crate) async fn resume_dedicated(
        &self,
        id: SegmentId,
        length: u64,
    ) -> Result<DedicatedWriter> {
        DedicatedWriter::resume(Arc::clone(&self.files), id, length).await
    }

    /// Opens a segment for reads of the drive, which leave the page cache as it is.
    pub(crate) async fn open_uncached(&self, id: SegmentId) -> Result<UncachedSegment> {
        UncachedSegment::open(&self.files, &self.context.pool, id).await
    }

    /// Starts a walk over the records of a segment, which end at `end`. Returns `None` if its header is not intact, and
    /// logs that once.
    pub(crate) async fn walk(
        &self,
        segment: &mut UncachedSegment,
        end: u64,
    ) -> Result<Option<RecordWalk>> {
        let what = match RecordWalk::start(segment, end).await? {
            Ok(walk) => return Ok(Some(walk)),
            Err(what) => what,
        };
        if self.bad_headers.lock().insert(segment.id()) {
            tracing::error!(segment = %segment.id(), %what, "the header of a segment is damaged, so it is never compacted; its blobs are served, and scrub checks each; check the drive");
        }
        Ok(None)
    }

    /// Opens the blob `digest` at `extent` for `client`. The reader keeps the bytes readable until it drops, even if
    /// they are collected. A failure marks no damage yet, because the blob may have moved since `extent` was looked up.
    pub(crate) async fn try_open_blob(
        &self,
        digest: Digest,
        extent: Extent,
        client: ClientId,
    ) -> std::result::Result<BlobReader, OpenFailure> {
        if let Some(there) = self.context.damaged.truncated_at(&extent) {
            let what = format!(
                "when the store was opened, {there} bytes were there, too few for blob {digest}; push it again"
            );
            let path = self.files.path(extent.segment);
            return Err(OpenFailure::known(Error::corrupt(&path, there, what)));
        }
        if self.context.damaged.is_other_content(&digest, &extent) {
            let what = format!("the bytes are not the content of {digest}; push it again");
            let path = self.files.path(extent.segment);
            return Err(OpenFailure::known(Error::corrupt(
                &path,
                extent.offset,
                what,
            )));
        }
        let context = Arc::clone(&self.context);
        BlobReader::open(&self.files, context, (digest, extent), client).await
    }

    /// Opens a shared segment to copy its records.
    pub(crate) async fn records(&self, id: SegmentId) -> Result<RecordScan> {
        RecordScan::open(self, id).await
    }

    /// Marks what a failure found, because the blob is still at `extent`.
    pub(crate) fn mark(&self, failure: OpenFailure, digest: Digest, extent: Extent) -> Error {
        failure.mark(&self.context.damaged, digest, extent)
    }
}
