//! The interfaces between the use cases and storage.
//!
//! Owns: the ports [`BlobStore`] (bytes), [`Catalog`] (names, links and edges) and [`ReadAccount`] (memory of answers).
//! Refuses: HTTP, OCI JSON, policy.
//!
//! A pair of a blob store and a catalog is one storage: each accepts only the tickets of the other. `embedded`
//! implements the pair on the engine. A pair on an object store and an SQL database can implement it as well, so
//! whatever such a pair would have to wait for returns a future, and a commit is one batch with preconditions instead
//! of locks. The types are this module's own or of `tonnage_engine::vocabulary`, which holds plain words only.

mod blobs;
mod catalog;
mod memory;

pub use self::blobs::{
    Blob, BlobStore, Condition, Pinned, Savepoint, Staged, StoredBlob, Upload, Windows,
};
pub use self::catalog::{Catalog, CommitError, RepositoryView, View};
pub use self::memory::{AnswerReads, HeldMemory, ReadAccount};
