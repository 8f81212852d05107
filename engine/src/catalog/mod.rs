//! The catalog and the index as rows: names, links, edges, referrers, and where blobs are.
//!
//! Owns: the rows that an operation changes ([`apply`]), typed reads of them ([`view`]), what each repository has
//! ([`usage`]), the manifests that may be garbage ([`manifest_suspects`]), and the steps that remove the rows of a
//! deleted repository ([`repository_purge`]) and of a large deleted manifest ([`retired`]). Refuses: storage of rows
//! (`table`), durability and preconditions (`commit`).
//!
//! Invariants: every row is a function of the journal. A fact and its reverse (edge and parent, tag and tagged
//! manifest, link and holder) change in the same operation. Counts that a scan can compute are not stored, except a
//! segment's live bytes, which each placement adjusts, and the usage of repositories.

pub(crate) mod apply;
mod manifest_suspects;
mod needed_by;
mod references;
mod repository;
pub(crate) mod repository_purge;
pub(crate) mod retired;
mod usage;
pub(crate) mod view;

pub(crate) use manifest_suspects::SuspectKind;
pub use needed_by::NeededBy;
pub use repository::Repository;
pub use view::{BlobInfo, TagInfo, View};
