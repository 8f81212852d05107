//! A store as admin operations use it.
//!
//! Owns: [`AdminStore`], for an open store and for a closed one that is only read, and [`OpenStore`].

use std::future::Future;
use std::sync::Arc;

use tonnage_engine::{ClosedStore, Store, StoreStats, View};

use super::error::AdminError;
use crate::repair::Repairs;

/// A store that [`execute`](super::execute()) works on.
pub trait AdminStore: Sync {
    /// Returns the newest durable state. For a store that is only read, it is always the same.
    fn view(&self) -> View;

    /// Counts what the store holds.
    fn stats(&self) -> impl Future<Output = tonnage_engine::Result<StoreStats>> + Send;

    /// Returns the open store, or [`AdminError::ReadOnly`] if it is only read.
    fn open(&self) -> Result<&OpenStore, AdminError>;

    /// Returns the store for changes, or [`AdminError::ReadOnly`] if it is only read.
    fn writable(&self) -> Result<&Store, AdminError> {
        Ok(&self.open()?.store)
    }
}

/// An open store with what operators started on it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OpenStore {
    store: Store,
    repairs: Arc<Repairs>,
}

impl OpenStore {
    /// Wraps a store. Use one for all requests, because a request asks for what another one started.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            repairs: Arc::default(),
        }
    }

    /// Returns the repairs that were started.
    pub(super) fn repairs(&self) -> &Repairs {
        &self.repairs
    }
}

impl AdminStore for OpenStore {
    fn view(&self) -> View {
        self.store.view()
    }

    async fn stats(&self) -> tonnage_engine::Result<StoreStats> {
        self.store.stats().await
    }

    fn open(&self) -> Result<&OpenStore, AdminError> {
        Ok(self)
    }
}

impl AdminStore for ClosedStore {
    fn view(&self) -> View {
        Self::view(self).clone()
    }

    async fn stats(&self) -> tonnage_engine::Result<StoreStats> {
        Self::stats(self).await
    }

    fn open(&self) -> Result<&OpenStore, AdminError> {
        Err(AdminError::ReadOnly)
    }
}
