//! The registry's use cases, in types of `oci` and of the ports.
//!
//! Owns: [`Registry`] and the meaning of each operation: the preconditions of a push, the sources of a mount, the scope
//! of a delete.
//! Refuses: HTTP types, storage details.
//!
//! Invariants: every use case takes an `Authorized` action and works on that action's repository; every change is one
//! commit with preconditions, so concurrent requests have the effect of some serial order.

mod attributes;
mod delete;
pub mod error;
mod list;
mod manifest;
mod mount;
pub mod peer;
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
use tonnage_engine::vocabulary::{ClientId, Origin};

pub use attributes::PushRecord;
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

/// Limits and rules that an operator may configure.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest manifest in bytes; the specification requires at least 4 MB.
    pub manifest_bytes: u64,
    /// Most tags that one manifest push sets; the specification requires at least 10.
    pub tags_per_push: usize,
    /// Repositories whose manifests may list content that they lack.
    pub sparse: Vec<RepositoryPattern>,
}

impl Default for Limits {
    /// Returns the default limits. Clients do not pull manifests larger than 4 MiB.
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            tags_per_push: 64,
            sparse: Vec::new(),
        }
    }
}

/// A body that is being received.
pub trait Source: Send {
    /// Returns the client that sends it.
    fn client(&self) -> ClientId;
    /// Returns its length in bytes if it was announced.
    fn length(&self) -> Option<u64>;
    /// Returns the next bytes, or `None` at the end. Fails with [`Error::BodyBroken`] if the body ended early, and with
    /// [`Error::BodyTimeout`] if it did not arrive in time.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send;
}

/// The registry over one pair of ports. It is cheap to clone.
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

/// Most long requests of each kind at a time.
const LONG_REQUESTS_MAX: usize = 2;

impl Registry {
    /// Creates a registry over `blobs` and `catalog`, which must be a pair.
    pub fn new(blobs: Arc<dyn BlobStore>, catalog: Arc<dyn Catalog>, limits: Limits) -> Self {
        Self {
            blobs,
            catalog,
            limits,
            long_lists: Arc::new(Semaphore::new(LONG_REQUESTS_MAX)),
            large_manifests: Arc::new(Semaphore::new(LONG_REQUESTS_MAX)),
        }
    }

    /// Returns its limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the condition of its storage.
    pub async fn condition(&self) -> ports::Condition {
        self.blobs.condition().await
    }

    async fn view(&self) -> Result<Box<dyn View>> {
        self.catalog.view().await
    }
}

/// Returns the origin of a commit for the journal.
fn origin(requester: &Requester) -> Origin {
    Origin {
        actor: requester.caller.subject.clone(),
        request: requester.request_id.clone(),
    }
}

impl From<CommitError> for Error {
    /// Converts the error for use cases that expect every precondition to hold.
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Failed(error) => error,
            CommitError::Unmet(requires) => Self::internal(format!(
                "a commit was refused for preconditions that were expected to hold: {requires:?}"
            )),
        }
    }
}
