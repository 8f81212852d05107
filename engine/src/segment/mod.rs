//! Segments: append-only files that hold the bytes of blobs.
//!
//! Owns: their names, ids, open handles, the two writers and the one reader; [`Segments`] is all of them
//! together. Refuses: knowing which blobs exist (`commit`) or are dead (`collect`).
//!
//! Invariants: written bytes never change once an extent was handed out; an id is never used twice; space
//! comes back by unlink only, and never under a reader.

mod appender;
mod damaged;
mod dedicated;
mod files;
mod ids;
mod open_files;
mod reader;
mod record_check;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, SegmentId};
use crate::io::{Directory, Env};
use crate::memory::ReadPool;
use crate::options::Options;
use crate::poison::Poison;

use crate::sync::oneshot;
use crate::vocabulary::ClientId;
pub(crate) use appender::{Appender, SmallBlob};
pub(crate) use damaged::Damaged;
pub(crate) use dedicated::DedicatedWriter;
pub(crate) use files::{AbandonGuard, SegmentFile, SegmentFiles, parse_segment_name, segment_name};
pub(crate) use ids::{RESERVE_IDS, SegmentIds};
pub(crate) use open_files::{OpenFile, OpenFiles, Purpose};
pub(crate) use reader::OpenFailure;
pub use reader::{BlobReader, BlobStream};

/// The segments of an open store.
#[derive(Debug)]
pub(crate) struct Segments {
    files: Arc<SegmentFiles>,
    ids: Arc<SegmentIds>,
    appender: Appender,
    pool: ReadPool,
    damaged: Arc<Damaged>,
}

impl Segments {
    /// The segments in `dir`, which is open, of the store with the id `store`. Starts the appending task; it creates
    /// nothing before the first small blob.
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
        let appender = Appender::start(&files, &ids, poison, options.shared_segment_bytes);
        let pool = ReadPool::new(options.read_budget_bytes, options.read_stall, clock);
        let damaged = Arc::default();
        Arc::new(Self {
            files,
            ids,
            appender,
            pool,
            damaged,
        })
    }

    /// The files.
    pub(crate) fn files(&self) -> &Arc<SegmentFiles> {
        &self.files
    }

    /// The ids.
    pub(crate) fn ids(&self) -> &Arc<SegmentIds> {
        &self.ids
    }

    /// The appender of shared segments.
    pub(crate) fn appender(&self) -> &Appender {
        &self.appender
    }

    /// Memory for reads.
    pub(crate) fn pool(&self) -> &ReadPool {
        &self.pool
    }

    /// What was found damaged.
    pub(crate) fn damaged(&self) -> &Arc<Damaged> {
        &self.damaged
    }

    /// Begins a dedicated segment.
    pub(crate) async fn create_dedicated(
        &self,
        permit: OwnedSemaphorePermit,
        length_hint: Option<u64>,
    ) -> Result<DedicatedWriter> {
        let (files, ids) = (Arc::clone(&self.files), Arc::clone(&self.ids));
        let (done, created) = oneshot::channel();
        // A task of its own: the caller may be dropped at any moment, and the file would have no owner. A writer that
        // is not taken removes it.
        let task = async move {
            drop(done.send(DedicatedWriter::create(files, &ids, permit, length_hint).await));
        };
        let spawn = &self.files.env().spawn;
        spawn.spawn("create segment", Box::pin(task));
        created.await.unwrap_or(Err(Error::Closed))
    }

    /// Takes up the dedicated segment of an upload that survived a restart.
    pub(crate) async fn resume_dedicated(
        &self,
        id: SegmentId,
        length: u64,
    ) -> Result<DedicatedWriter> {
        DedicatedWriter::resume(Arc::clone(&self.files), id, length).await
    }

    /// Opens the blob `digest`, which is at `extent`, for `client`. The reader keeps the bytes readable, whatever is collected
    /// meanwhile.
    pub(crate) async fn open_blob(
        &self,
        digest: Digest,
        extent: Extent,
        client: ClientId,
    ) -> Result<BlobReader> {
        let opened = self.try_open_blob(digest, extent, client).await;
        opened.map_err(|failure| self.mark(failure, digest, extent))
    }

    /// As [`Segments::open_blob`], for a blob that may not be at `extent` any more: a failure marks nothing.
    pub(crate) async fn try_open_blob(
        &self,
        digest: Digest,
        extent: Extent,
        client: ClientId,
    ) -> std::result::Result<BlobReader, OpenFailure> {
        if let Some(there) = self.damaged.truncated_at(&extent) {
            let what = format!(
                "when the store was opened, {there} bytes were there, too few for blob {digest}; push it again"
            );
            let path = self.files.path(extent.segment);
            return Err(OpenFailure::known(Error::corrupt(&path, there, what)));
        }
        let (files, pool, damaged) = (&self.files, &self.pool, &self.damaged);
        BlobReader::open(files, pool, damaged, (digest, extent), client).await
    }

    /// Counts what a failure found: the blob is at `extent` still.
    pub(crate) fn mark(&self, failure: OpenFailure, digest: Digest, extent: Extent) -> Error {
        failure.mark(&self.damaged, digest, extent)
    }
}
