//! A store as admin operations use it.
//!
//! Owns: [`AdminStore`], for an open store and for a closed one that is only read.

use std::future::Future;

use tonnage_engine::{ClosedStore, Store, StoreStats, View};

use super::error::AdminError;

/// A store that [`execute`](super::execute()) works on.
pub trait AdminStore: Sync {
    /// Returns the newest durable state. For a store that is only read, it is always the same.
    fn view(&self) -> View;

    /// Counts what the store holds.
    fn stats(&self) -> impl Future<Output = tonnage_engine::Result<StoreStats>> + Send;

    /// Returns the store for changes, or [`AdminError::ReadOnly`] if it is only read.
    fn writable(&self) -> Result<&Store, AdminError>;
}

impl AdminStore for Store {
    fn view(&self) -> View {
        Self::view(self)
    }

    async fn stats(&self) -> tonnage_engine::Result<StoreStats> {
        Self::stats(self).await
    }

    fn writable(&self) -> Result<&Store, AdminError> {
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

    fn writable(&self) -> Result<&Store, AdminError> {
        Err(AdminError::ReadOnly)
    }
}
