//! Statistics of a store.
//! Owns: [`GetStats`] and its answer. Refuses: counting, which the engine does.

use serde::{Deserialize, Serialize};
use tonnage_engine::StoreStats;

use super::error::AdminError;
use super::store::AdminStore;

/// Requests the statistics of the store.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct GetStats {}

/// The statistics of a store. [`StoreStats`] describes each number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are the engine's, which describes them"
)]
pub struct Stats {
    pub lsn: u64,
    pub repositories: u64,
    pub blobs: u64,
    pub blob_bytes: u64,
    pub segments: u64,
    pub uploads: u64,
    pub delta_bytes: u64,
    pub disk_total_bytes: u64,
    pub disk_available_bytes: u64,
    pub free_space_min_bytes: u64,
    pub poisoned: bool,
}

impl From<StoreStats> for Stats {
    fn from(stats: StoreStats) -> Self {
        Self {
            lsn: stats.lsn.0,
            repositories: stats.repositories,
            blobs: stats.blobs,
            blob_bytes: stats.blob_bytes,
            segments: stats.segments,
            uploads: stats.uploads,
            delta_bytes: stats.delta_bytes,
            disk_total_bytes: stats.disk_total_bytes,
            disk_available_bytes: stats.disk_available_bytes,
            free_space_min_bytes: stats.free_space_min_bytes,
            poisoned: stats.poisoned,
        }
    }
}

pub(super) async fn get_stats(store: &dyn AdminStore) -> Result<Stats, AdminError> {
    Ok(store.stats().await?.into())
}
