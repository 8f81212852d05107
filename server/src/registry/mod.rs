//! The registry's use cases, in types of `oci` and of the ports.
//!
//! Owns: [`Registry`] and what each operation means: which preconditions a push has, what a mount may read, what a
//! delete takes along.
//! Refuses: HTTP types, storage details.
//!
//! Invariants: every use case takes an `Authorized` action and works on that action's repository; every change
//! is one commit with preconditions, so two requests at once are explained by some order of the two.

mod attributes;
mod delete;
pub mod error;
mod list;
mod manifest;
mod mount;
pub mod ports;
mod pull;
mod push;
mod referrers;
mod tag;

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tonnage_engine::vocabulary::Origin;

#[cfg(feature = "fuzz-entry")]
pub use attributes::read_attributes;
pub use error::{Error, Missing, Result, Shortage};
pub use list::Listing;
pub use manifest::{LARGE_MANIFEST_BYTES, ManifestPush, PushedManifest};
pub use pull::Found;
pub use referrers::{Referrer, ReferrersPage, ReferrersQuery};
pub use tag::Precondition;

use crate::access::Requester;
use crate::oci::RepositoryPattern;
use ports::{BlobStore, Catalog, CommitError, View};

/// What an operator may set: bounds, and where a rule is another one.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest manifest in bytes; the specification wants at least 4 MB.
    pub manifest_bytes: u64,
    /// Most tags that one manifest push sets; the specification wants at least 10.
    pub tags_per_push: usize,
    /// Repositories whose manifests may list what is not there.
    pub sparse: Vec<RepositoryPattern>,
}

impl Default for Limits {
    /// 4 MiB is what clients refuse to pull beyond.
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            tags_per_push: 64,
            sparse: Vec::new(),
        }
    }
}

/// A body on its way in.
pub trait Source: Send {
    /// Its length in bytes where it was announced.
    fn length(&self) -> Option<u64>;
    /// The next bytes, `None` at the end; [`Error::BodyBroken`] if it ended early, [`Error::BodyTimeout`] if it
    /// did not come in time.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send;
}

/// The registry over one pair of ports. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    blobs: Arc<dyn BlobStore>,
    catalog: Arc<dyn Catalog>,
    limits: Limits,
    /// Permits for requests that scan a long list.
    long_lists: Arc<Semaphore>,
    /// Permits for listing referrers whose manifests are large.
    large_manifests: Arc<Semaphore>,
}

/// Most requests of each kind at a time, where one takes long.
const LONG_REQUESTS_MAX: usize = 2;

impl Registry {
    /// A registry over `blobs` and `catalog`, which must belong together.
    pub fn new(blobs: Arc<dyn BlobStore>, catalog: Arc<dyn Catalog>, limits: Limits) -> Self {
        Self {
            blobs,
            catalog,
            limits,
            long_lists: Arc::new(Semaphore::new(LONG_REQUESTS_MAX)),
            large_manifests: Arc::new(Semaphore::new(LONG_REQUESTS_MAX)),
        }
    }

    /// The bounds it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns how fit for work its storage is.
    pub async fn condition(&self) -> ports::Condition {
        self.blobs.condition().await
    }

    async fn view(&self) -> Result<Box<dyn View>> {
        self.catalog.view().await
    }
}

/// Who asked for a commit, as the journal keeps it.
fn origin(requester: &Requester) -> Origin {
    Origin {
        actor: requester.caller.subject.clone(),
        request: requester.request_id.clone(),
    }
}

impl From<CommitError> for Error {
    /// For use cases that expect every precondition to hold.
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Failed(error) => error,
            CommitError::Unmet(requires) => Self::internal(format!(
                "a commit that requires nothing else was refused: {requires:?}"
            )),
        }
    }
}
