//! A store as admin operations use it.
//!
//! Owns: [`AdminStore`], for an open store and for a closed one that is only read, and [`OpenStore`].

use futures_util::future::{BoxFuture, FutureExt as _};
use tonnage_engine::{ClosedStore, Store, StoreStats, View};

use super::collect::{CollectedGarbage, StartCollection};
use super::error::AdminError;
use super::repair::{RepairedStore, StartRepair};
use super::scrub::{ScrubbedStore, StartScrub};
use super::started::StartedJobs;

/// A store that [`execute`](super::execute()) works on.
pub trait AdminStore: Sync {
    /// Returns the newest durable state. For a store that is only read, it is always the same.
    fn view(&self) -> View;

    /// Counts what the store holds.
    fn stats(&self) -> BoxFuture<'_, tonnage_engine::Result<StoreStats>>;

    /// Returns the open store, or [`AdminError::ReadOnly`] if it is only read.
    fn open(&self) -> Result<&OpenStore, AdminError>;

    /// Returns the store for changes, or [`AdminError::ReadOnly`] if it is only read.
    fn writable(&self) -> Result<&Store, AdminError> {
        Ok(&self.open()?.store)
    }
}

/// An open store with the jobs that operators started on it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OpenStore {
    store: Store,
    /// Whether no server had the store open until now.
    pub(super) was_closed: bool,
    pub(super) collections: StartedJobs<StartCollection, CollectedGarbage>,
    pub(super) scrubs: StartedJobs<StartScrub, ScrubbedStore>,
    pub(super) repairs: StartedJobs<StartRepair, RepairedStore>,
}

impl OpenStore {
    /// Wraps the store of a server. Use one for all requests, because a request asks for what another one started.
    pub fn new(store: Store) -> Self {
        Self {
            was_closed: false,
            collections: StartedJobs::new(store.clone()),
            scrubs: StartedJobs::new(store.clone()),
            repairs: StartedJobs::new(store.clone()),
            store,
        }
    }

    /// Wraps a store that no server had open until now.
    pub fn of_closed(store: Store) -> Self {
        Self {
            was_closed: true,
            ..Self::new(store)
        }
    }

    /// Closes the store. What operators started ends between two steps.
    pub async fn close(self) -> tonnage_engine::Result<()> {
        self.store.close().await
    }
}

impl AdminStore for OpenStore {
    fn view(&self) -> View {
        self.store.view()
    }

    fn stats(&self) -> BoxFuture<'_, tonnage_engine::Result<StoreStats>> {
        self.store.stats().boxed()
    }

    fn open(&self) -> Result<&OpenStore, AdminError> {
        Ok(self)
    }
}

impl AdminStore for ClosedStore {
    fn view(&self) -> View {
        Self::view(self).clone()
    }

    fn stats(&self) -> BoxFuture<'_, tonnage_engine::Result<StoreStats>> {
        Self::stats(self).boxed()
    }

    fn open(&self) -> Result<&OpenStore, AdminError> {
        Err(AdminError::ReadOnly)
    }
}
