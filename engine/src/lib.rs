//! A log-structured, content-addressed blob store with a catalog and one commit point.
//!
//! Read `ARCHITECTURE.md` at the top of the repository for the map, `FORMAT.md` beside this crate for every byte on
//! disk, and `DURABILITY.md` for what is promised when a call returns.
//!
//! The public surface is [`Store`] and its types, all named at the root of the crate, and the modules that are
//! contracts of their own. [`io`] is what a backend implements. [`mod@format`] defines each byte on disk. [`fsck`]
//! checks a closed store. [`limits`] has the bounds, and [`vocabulary`] the types of a commit. Everything else is
//! private.
//!
//! The largest calls return boxed futures. Otherwise each crate that awaits them would compile most of the engine
//! again.

mod buffer;
mod catalog;
mod checkpoint;
mod client_turns;
mod collection;
mod commit;
mod compaction;
mod digest;
mod error;
mod extent;
mod finished_blob;
pub mod format;
pub mod fsck;
mod in_flight;
pub mod io;
mod jobs;
mod journal;
mod lease;
pub mod limits;
mod memory;
mod options;
mod pace;
mod poison;
mod recovery;
mod round_robin;
mod scrub;
mod segment;
mod state;
mod store;
mod sync;
mod table;
mod upload;
pub mod vocabulary;

pub use catalog::{BlobInfo, NeededBy, Repository, TagInfo, View};
pub use collection::{DeletionTrial, Freed};
pub use digest::Hasher;
pub use error::{Corruption, Error, Result};
pub use extent::{Extent, Layout, Lsn, SegmentId, VolumeId};
pub use finished_blob::{Committed, FinishedBlob};
pub use format::keys::RepositoryUsage;
pub use format::transaction::RepositoryId;
pub use jobs::{Job, JobControl, JobInfo, JobKind};
pub use lease::Pin;
pub use memory::{HeldBytes, MemoryAccount, MemoryBudget, MemoryPriority, Reading};
pub use options::{DESCRIPTORS_BESIDE_BLOBS, Options, UntaggedPolicy};
pub use pace::Pace;
pub use recovery::superblock::ADMIN_SOCKET;
pub use segment::{BlobReader, BlobStream};
pub use store::{
    CheckpointReport, ClosedStore, CollectedBlob, CollectedManifest, CollectionReport,
    CollectionRequest, CollectionTotals, CompactionReport, DamagedBlobs, OpenReport, RunStats,
    ScrubReport, ScrubRequest, ScrubTotals, Store, StoreStats,
};
pub use upload::{DiskSpace, Savepoint, Upload, UploadStatus};
pub use vocabulary::{
    Algorithm, Batch, Change, ClientId, Digest, ManifestEntry, Origin, ParseDigestError,
    ParseUploadIdError, Require, UploadClaim, UploadId, UploadPosition, UploadSpec,
};
