//! The interfaces between the use cases and storage.
//!
//! Owns: the ports [`BlobStore`] (bytes), [`Catalog`] (names, links and edges) and [`ReadAccount`] (memory of answers).
//! Refuses: HTTP, OCI JSON, policy.
//!
//! A pair of a blob store and a catalog is one storage: each accepts only the tickets of the other. `embedded`
//! implements the pair on the engine. A pair on an object store and an SQL database can implement it as well. So every
//! method for which such a pair has to wait returns a future, and a commit is one batch with preconditions instead of
//! locks. The types are defined here or in `tonnage_engine::vocabulary`, which has plain data only.

mod blobs;
mod catalog;
mod memory;

pub use self::blobs::{
    Blob, BlobStore, Condition, Pinned, Savepoint, Staged, StoredBlob, Upload, Windows,
};
pub use self::catalog::{Catalog, CommitError, RepositoryView, Revision, View};
pub use self::memory::{AnswerReads, HeldMemory, ReadAccount};
