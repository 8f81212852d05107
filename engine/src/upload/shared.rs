//! What the uploads of a store share, and the description of one upload.

use std::sync::{Arc, Weak};

use super::session_table::SessionTable;
use super::space::EvictionState;
use super::staging::StagingBudget;
use super::watermark::Measurement;
use crate::io::{Directory, Env};
use crate::options::Options;
use crate::segment::Segments;
use crate::sync::Notify;
use crate::vocabulary::UploadId;

/// What all uploads of a store share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) dir: Directory,
    pub(super) segments: Arc<Segments>,
    pub(super) options: Options,
    pub(super) staging: Arc<StagingBudget>,
    pub(super) evictions: EvictionState,
    pub(super) measurement: Measurement,
    pub(super) sessions: Weak<SessionTable>,
    /// Notified when an upload holds memory or a descriptor that it did not hold before.
    pub(super) held: Arc<Notify>,
}

/// The id, repository and actor of an upload.
#[derive(Debug, Clone)]
pub(super) struct UploadIdentity {
    pub(super) id: UploadId,
    pub(super) repository: String,
    pub(super) actor: String,
    pub(super) created_unix_ms: u64,
}
