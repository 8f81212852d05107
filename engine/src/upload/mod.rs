//! Uploads: bytes on their way in.
//!
//! Owns: sessions, their pipeline (receive, hash, write at once), memory under one budget, and what of them
//! survives a restart. Refuses: making anything exist; that is a commit of the [`crate::FinishedBlob`].
//!
//! Invariants: an upload has one writer at a time, the newest request that is in order; what was received stays
//! received when a request ends, however it ends; memory does not grow with the size of a blob, but for 4 bytes a
//! chunk; an upload to which nothing comes holds neither bytes in memory nor a descriptor, and may be ended where
//! a limit is reached.

mod body;
mod digestion;
mod finished;
mod log;
mod places;
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
#[cfg(test)]
pub(crate) mod workbench;

use std::fmt::Debug;
use std::pin::Pin;

use crate::digest::{Algorithm, Digest};
use crate::extent::Extent;

pub(crate) use quiet::LOOK_INTERVAL;
pub use request::{Savepoint, Upload};
pub(crate) use resume::surviving;
pub(crate) use resume::{FoundLog, ReadLog, logs};
pub(crate) use sessions::Uploads;

/// Whether `name` is that of an upload log.
pub(crate) fn is_log_name(name: &str) -> bool {
    log::LogFile::parse_name(name).is_some()
}

/// How far an upload has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStatus {
    /// Bytes received.
    pub offset: u64,
    /// The algorithm that runs.
    pub algorithm: Algorithm,
    /// Who began it.
    pub actor: String,
    /// When it began, Unix ms.
    pub created_unix_ms: u64,
}

/// What the store has already, so that it is not written again.
pub(crate) trait Existing: Send + Sync + Debug {
    /// Where the content of `digest` is, as of the last durable transaction. The digest is pinned when this is asked.
    fn stored(&self, digest: Digest) -> Pin<Box<dyn Future<Output = Option<Extent>> + Send + '_>>;
}
