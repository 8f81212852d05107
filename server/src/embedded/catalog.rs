//! Implements [`Catalog`], [`View`] and [`RepositoryView`] on the engine. A read waits only for rows that have to be
//! read from the disk.

use std::sync::Arc;

use futures_util::future::{self, BoxFuture, FutureExt as _};
use tonnage_engine::vocabulary::{Batch, Digest, ManifestEntry};
use tonnage_engine::{self as engine, FinishedBlob, RepositoryId, Store};

use super::error;
use crate::registry::Result;
use crate::registry::ports::{
    Catalog, CommitError, RepositoryView, Revision, Staged, StoredBlob, View,
};

#[derive(Debug)]
pub(super) struct StoreCatalog(pub(super) Store);

/// A view, and the store that has the policy of its repositories.
#[derive(Debug)]
struct Snapshot {
    view: engine::View,
    store: Store,
}

impl Catalog for StoreCatalog {
    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>>> {
        let view: Box<dyn View> = Box::new(Snapshot {
            view: self.0.view(),
            store: self.0.clone(),
        });
        future::ready(Ok(view)).boxed()
    }

    fn revision(&self) -> Option<Revision> {
        Some(Revision(self.0.lsn().0))
    }

    fn commit(&self, batch: Batch<Staged>) -> BoxFuture<'_, std::result::Result<(), CommitError>> {
        async move {
            match self.0.commit(batch.map_staged(finished_blob)).await {
                Ok(_) => Ok(()),
                Err(engine::Error::Unmet(unmet)) => Err(CommitError::Unmet(unmet)),
                Err(other) => Err(CommitError::Failed(error(other))),
            }
        }
        .boxed()
    }
}

/// Returns the engine's form of a staged item.
fn finished_blob(staged: Staged) -> FinishedBlob {
    match staged.ticket.downcast::<FinishedBlob>() {
        Ok(blob) => *blob,
        Err(_) => unreachable!("bytes staged in another blob store were given to this catalog"),
    }
}

impl Snapshot {
    /// Calls `read` until all rows that it needs are in memory, and returns its result.
    fn read<'a, T: Send + 'a>(
        &'a self,
        read: impl Fn(&engine::View) -> engine::Result<T> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        async move { self.view.read(read).await.map_err(error) }.boxed()
    }
}

impl View for Snapshot {
    fn repository<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Box<dyn RepositoryView>>>> {
        self.read(move |view| {
            let found = view.repository(name)?;
            Ok(found.map(|found| {
                let repository = SnapshotRepository {
                    view: view.clone(),
                    id: found.id(),
                    store: self.store.clone(),
                };
                Box::new(repository) as Box<dyn RepositoryView>
            }))
        })
    }

    fn repositories<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        self.read(move |view| view.repositories(after, limit))
    }

    fn blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<StoredBlob>>> {
        self.read(move |view| {
            Ok(view
                .blob(&digest)?
                .map(|found| stored(digest, found, false)))
        })
    }

    fn holders(&self, digest: Digest, limit: usize) -> BoxFuture<'_, Result<Vec<String>>> {
        self.read(move |view| view.holders(&digest, limit))
    }
}

/// Converts a blob for the blob store of this pair of ports.
fn stored(digest: Digest, found: engine::BlobInfo, needs_lease: bool) -> StoredBlob {
    StoredBlob {
        digest,
        length: found.length,
        needs_lease,
        ticket: Arc::new(found),
    }
}

/// A repository of a snapshot.
#[derive(Debug)]
struct SnapshotRepository {
    view: engine::View,
    id: RepositoryId,
    store: Store,
}

impl SnapshotRepository {
    /// Calls `read` until all rows that it needs are in memory, and returns its result.
    fn read<'a, T: Send + 'a>(
        &'a self,
        read: impl Fn(engine::Repository<'_>) -> engine::Result<T> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        let Self { view, id, .. } = self;
        let read = move |view: &engine::View| read(engine::Repository::new(view, *id));
        async move { view.read(read).await.map_err(error) }.boxed()
    }
}

impl RepositoryView for SnapshotRepository {
    fn incarnation(&self) -> u64 {
        self.id.0
    }

    fn tag<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, Result<Option<Digest>>> {
        self.read(|repository| {
            let found = repository.tag(tag)?;
            Ok(found.map(|tag| tag.digest))
        })
    }

    fn tags<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        self.read(move |repository| {
            let tags = repository.tags(after, limit)?;
            Ok(tags.into_iter().map(|tag| tag.tag).collect())
        })
    }

    fn manifest(&self, digest: Digest) -> BoxFuture<'_, Result<Option<ManifestEntry>>> {
        self.read(move |repository| repository.manifest(&digest))
    }

    fn manifest_blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<StoredBlob>>> {
        self.read(move |repository| {
            let Some(found) = self.view.blob(&digest)? else {
                return Ok(None);
            };
            let policy = self.store.untagged_policy();
            let needs_lease = repository.manifest_needs_lease(&digest, policy)?;
            Ok(Some(stored(digest, found, needs_lease)))
        })
    }

    fn blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<StoredBlob>>> {
        self.read(move |repository| {
            let Some(found) = repository.blob(&digest)? else {
                return Ok(None);
            };
            let needs_lease = repository.needs_lease(&digest)?;
            Ok(Some(stored(digest, found, needs_lease)))
        })
    }

    fn referrers(
        &self,
        subject: Digest,
        after: Option<Digest>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ManifestEntry>>> {
        self.read(move |repository| repository.referrer_entries(&subject, after.as_ref(), limit))
    }
}
