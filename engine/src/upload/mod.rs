//! Uploads: bytes on their way into the store.
//!
//! Owns: sessions, their pipeline (receive, hash, write at once), their memory under one budget, and what of them
//! survives a restart. Refuses: to make anything exist, which needs a commit of the [`crate::FinishedBlob`].
//!
//! Invariants: an upload has one writer at a time, the newest request that is in order. Received bytes stay when a
//! request ends, however it ends. Memory does not grow with the size of a blob, except for 4 bytes a chunk. An upload
//! that receives nothing holds neither bytes in memory nor a descriptor, and may be ended when a limit is reached.

mod body;
mod eviction;
mod finished;
mod log;
mod payload_hash;
mod quiet;
mod request;
mod resume;
mod session;
mod session_table;
mod sessions;
mod shared;
mod small;
mod space;
mod spill;
mod staging;
#[cfg(test)]
mod tests;
mod watermark;
#[cfg(test)]
pub(crate) mod workbench;

use std::fmt::Debug;
use std::pin::Pin;

use crate::digest::{Algorithm, Digest};
use crate::extent::Extent;

pub(crate) use quiet::SCAN_INTERVAL;
pub use request::{Savepoint, Upload};
pub(crate) use resume::resumable_segments;
pub(crate) use resume::{FoundLog, ReadLog, logs};
pub(crate) use sessions::Uploads;
pub use watermark::DiskSpace;

/// Returns whether `name` is that of an upload log.
pub(crate) fn is_log_name(name: &str) -> bool {
    log::LogFile::parse_name(name).is_some()
}

/// How far an upload has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStatus {
    /// Bytes received.
    pub offset: u64,
    /// The running algorithm.
    pub algorithm: Algorithm,
    /// The actor that began it.
    pub actor: String,
    /// When it began, in Unix ms.
    pub created_unix_ms: u64,
}

/// A lookup of blobs that the store has, so that they are not written again.
pub(crate) trait Existing: Send + Sync + Debug {
    /// Returns where the content of `digest` is, as of the last durable transaction. The caller has pinned the digest.
    fn stored(&self, digest: Digest) -> Pin<Box<dyn Future<Output = Option<Extent>> + Send + '_>>;
}
