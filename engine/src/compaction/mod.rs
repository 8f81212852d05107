//! Compaction: live blobs of a shared segment are copied to another one, so that the first can be unlinked.
//!
//! Owns: which segments are worth it ([`choose`]), pure. Refuses: copying (`store::compaction`) and queueing moves
//! (`commit::moves`).

mod policy;

pub(crate) use policy::{Candidate, Effort, choose};
