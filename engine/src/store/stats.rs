//! Figures for operators: what is stored and what is in progress.
//!
//! Owns: [`StoreStats`]. Refuses: a metrics library; the server exports the figures.

use super::Inner;
use super::checkpoints::RunStats;
use crate::catalog::View;
use crate::error::{Error, Result};
use crate::extent::Lsn;
use crate::io::{Class, Space};
use crate::upload::DiskSpace;

/// Figures of a store at one LSN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStats {
    /// The last durable transaction.
    pub lsn: Lsn,
    /// Blobs whose bytes are stored.
    pub blobs: u64,
    /// Their payload bytes.
    pub blob_bytes: u64,
    /// Segments that hold live blobs.
    pub segments: u64,
    /// Repositories.
    pub repositories: u64,
    /// Unfinished uploads.
    pub uploads: u64,
    /// Deleted repositories, and deleted manifests with very many tags or edges, whose rows are not all removed yet.
    pub deletions_unfinished: u64,
    /// Bytes of index and catalog in memory, not yet in a checkpoint.
    pub delta_bytes: u64,
    /// Runs of index and catalog on disk.
    pub runs: RunStats,
    /// Size of the file system in bytes.
    pub disk_total_bytes: u64,
    /// Bytes available on it.
    pub disk_available_bytes: u64,
    /// Free bytes below which the bytes of uploads are refused; 0 for a closed store, which takes none.
    pub free_space_min_bytes: u64,
    /// Whether an earlier failure stopped writes.
    pub poisoned: bool,
}

impl StoreStats {
    /// Counts what `view` shows, on a file system with `space`. Does not count uploads. The cost grows with the number
    /// of segments and repositories, not of blobs.
    pub(super) async fn count(view: &View, space: Space) -> Result<Self> {
        let deleted = view.read(View::deleted_repositories).await?;
        let mut stats = Self {
            lsn: view.lsn(),
            blobs: 0,
            blob_bytes: 0,
            segments: 0,
            repositories: view.repository_count().await?,
            uploads: 0,
            deletions_unfinished: deleted + view.retired_manifests(),
            delta_bytes: view.state().layers.delta_bytes() as u64,
            runs: RunStats::default(),
            disk_total_bytes: space.total_bytes,
            disk_available_bytes: space.available_bytes,
            free_space_min_bytes: 0,
            poisoned: false,
        };
        let mut segments = view.segments();
        while let Some((_, used)) = segments.next_resident().await? {
            stats.segments += u64::from(used.live_blobs > 0);
            stats.blobs += used.live_blobs;
            stats.blob_bytes += used.live_bytes;
        }
        Ok(stats)
    }
}

pub(super) async fn gather(inner: &Inner) -> Result<StoreStats> {
    let space = inner
        .env
        .io
        .space(Class::Directory.call(), &inner.path)
        .await;
    let space = space.map_err(|source| Error::io("ask for the space on", &inner.path, source))?;
    let view = View::new(inner.sequencer.durable());
    Ok(StoreStats {
        uploads: inner.uploads.len() as u64,
        delta_bytes: inner.sequencer.delta_bytes() as u64,
        runs: inner.checkpoints.stats(inner),
        free_space_min_bytes: DiskSpace::new(space, inner.options.free_space_min_bytes)
            .free_min_bytes,
        poisoned: inner.poison.cause().is_some(),
        ..StoreStats::count(&view, space).await?
    })
}
