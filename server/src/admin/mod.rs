//! Operations of an operator on a store: one request type, one executor.
//!
//! Owns: [`AdminRequest`] with a variant for each operation, and [`execute`], which carries it out for the socket of a
//! running server and for commands on a closed store. Each operation has its request, its answer and its function in
//! the file of its subject.
//! Refuses: authorization, because every user who may open the store's files may send requests. HTTP is in
//! `frontends::admin`.
//!
//! Invariants: a list is requested page by page, so its memory does not grow with the store. Each page shows one state.
//! A deletion is one transaction, also of many tags.
//!
//! To add an operation: write its request, its answer and its function, add a line to the table in `request.rs` and
//! an arm to the executor.

mod collect;
mod commit;
mod error;
mod executor;
mod jobs;
mod repair;
mod repositories;
mod request;
mod scrub;
mod started;
mod stats;
mod store;
mod tags;
mod usage;
mod whence;

pub use self::collect::{
    CollectedBlob, CollectedGarbage, CollectedManifest, Compacted, GetCollection, StartCollection,
};
pub use self::error::{AdminError, NotFound};
pub use self::executor::execute;
pub use self::jobs::{ControlJobs, JobAction, JobEntry, JobList, ListJobs};
pub use self::repair::{
    GetRepair, PlanRepair, PlannedEntry, PlannedRepair, RefusedPlace, RepairedEntry, RepairedStore,
    StartRepair,
};
pub use self::repositories::{
    DeleteRepository, ListRepositories, RepositoryContent, RepositoryPage,
};
pub use self::request::{AdminAnswer, AdminRequest, Operation};
pub use self::scrub::{DamagedBlob, GetScrub, ScrubbedStore, StartScrub};
pub use self::started::{JobState, StartedJob};
pub use self::stats::{GetStats, Stats};
pub use self::store::{AdminStore, OpenStore};
pub use self::tags::{DeleteTags, DeletedTags, ListTags, TagEntry, TagPage};
pub use self::usage::{
    DeletionEffect, ListUsage, ManifestReference, TryDeletion, UsageEntry, UsagePage,
};
pub use self::whence::{ContentOrigin, ManifestOrigin, Whence};
pub use crate::registry::PushRecord;

/// Most entries of a page.
const PAGE_ENTRIES_MAX: usize = 1000;
