//! [`Catalog`] and [`View`] on the engine. A read waits only where rows have to be read from the disk.

use futures_util::future::{self, BoxFuture, FutureExt as _};
use tonnage_engine::store::Store;
use tonnage_engine::{self as engine, Digest, FinishedBlob, catalog};

use super::error;
use crate::registry::Result;
use crate::registry::ports::{Batch, Catalog, Change, CommitError, ManifestEntry, Staged, View};

#[derive(Debug)]
pub(super) struct Embedded(pub(super) Store);

#[derive(Debug)]
struct Snapshot(catalog::View);

impl Catalog for Embedded {
    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>>> {
        let view: Box<dyn View> = Box::new(Snapshot(self.0.view()));
        future::ready(Ok(view)).boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, std::result::Result<(), CommitError>> {
        async move {
            let batch = engine::Batch {
                repository: batch.repository,
                create_repository: batch.create_repository,
                requires: batch.requires,
                changes: batch.changes.into_iter().map(change).collect(),
                origin: batch.origin,
            };
            match self.0.commit(batch).await {
                Ok(_) => Ok(()),
                Err(engine::Error::Unmet(unmet)) => Err(CommitError::Unmet(unmet)),
                Err(other) => Err(CommitError::Failed(error(other))),
            }
        }
        .boxed()
    }
}

fn change(change: Change) -> engine::Change {
    match change {
        Change::Place(Staged { ticket, .. }) => match ticket.downcast::<FinishedBlob>() {
            Ok(blob) => engine::Change::Place(*blob),
            Err(_) => unreachable!("bytes staged in another blob store were given to this catalog"),
        },
        Change::Link(digest) => engine::Change::Link(digest),
        Change::Unlink(digest) => engine::Change::Unlink(digest),
        Change::PutManifest(entry) => engine::Change::PutManifest(entry),
        Change::DeleteManifest(digest) => engine::Change::DeleteManifest(digest),
        Change::SetTag { tag, digest } => engine::Change::SetTag { tag, digest },
        Change::DeleteTag(tag) => engine::Change::DeleteTag(tag),
    }
}

impl Snapshot {
    /// What `read` finds, once all rows that it needs are in memory.
    fn read<'a, T: Send + 'a>(
        &'a self,
        read: impl Fn(&catalog::View) -> engine::Result<T> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        async move { self.0.read(read).await.map_err(error) }.boxed()
    }
}

impl View for Snapshot {
    fn repository_exists<'a>(&'a self, repository: &'a str) -> BoxFuture<'a, Result<bool>> {
        self.read(|view| view.repository_exists(repository))
    }

    fn repositories<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        self.read(move |view| view.repositories(after, limit))
    }

    fn tag<'a>(
        &'a self,
        repository: &'a str,
        tag: &'a str,
    ) -> BoxFuture<'a, Result<Option<Digest>>> {
        self.read(|view| {
            let found = view.tag(repository, tag)?;
            Ok(found.map(|tag| tag.digest))
        })
    }

    fn tags<'a>(
        &'a self,
        repository: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        self.read(move |view| {
            let tags = view.tags(repository, after, limit)?;
            Ok(tags.into_iter().map(|tag| tag.tag).collect())
        })
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Option<ManifestEntry>>> {
        self.read(move |view| view.manifest(repository, &digest))
    }

    fn blob<'a>(
        &'a self,
        repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Option<u64>>> {
        self.read(move |view| {
            if !view.linked(repository, &digest)? {
                return Ok(None);
            }
            Ok(view.blob(&digest)?.map(|blob| blob.length))
        })
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a str,
        subject: Digest,
        after: Option<Digest>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<ManifestEntry>>> {
        self.read(move |view| view.referring(repository, &subject, after.as_ref(), limit))
    }

    fn holders(&self, digest: Digest, limit: usize) -> BoxFuture<'_, Result<Vec<String>>> {
        self.read(move |view| view.holders(&digest, limit))
    }
}
