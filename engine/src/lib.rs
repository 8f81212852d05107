//! A log-structured, content-addressed blob store with a catalog and one commit point.
//!
//! Read `ARCHITECTURE.md` at the top of the repository for the map, `FORMAT.md` beside this crate for
//! every byte on disk, and `DURABILITY.md` for what is promised when a call returns.

pub mod buffer;
pub mod catalog;
pub mod checkpoint;
pub mod commit;
pub mod digest;
pub mod error;
pub mod extent;
pub mod finished_blob;
pub mod format;
pub mod fsck;
mod in_flight;
pub mod io;
pub mod journal;
pub mod lease;
pub mod limits;
pub mod memory;
pub mod options;
pub mod poison;
pub mod recovery;
pub mod segment;
pub mod state;
pub mod store;
mod sync;
pub mod table;
mod turns;
pub mod upload;
pub mod vocabulary;

pub use digest::Hasher;
pub use error::{Corruption, Error, Result};
pub use finished_blob::{Committed, FinishedBlob};
pub use memory::{Lane, MemoryAccount, MemoryBudget, Reading};
pub use options::Options;
pub use segment::{BlobReader, BlobStream};
pub use store::{OpenReport, Store, StoreStats};
pub use vocabulary::{
    Algorithm, Batch, Change, ClientId, Digest, ManifestEntry, Origin, ParseDigestError, Require,
};
