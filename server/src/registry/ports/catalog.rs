//! The port for names, links and edges.
//!
//! Owns: [`Catalog`], [`View`], [`RepositoryView`], [`CommitError`].
//! Refuses: bytes; a blob found here is opened by the pair's blob store.

use std::fmt::Debug;

use futures_util::future::BoxFuture;
use tonnage_engine::vocabulary::{Batch, Digest, ManifestEntry, Require};

use super::{Staged, StoredBlob};
use crate::registry::error::{Error, Result};

/// Why a batch was not committed.
#[derive(Debug)]
pub enum CommitError {
    /// These preconditions do not hold; nothing changed.
    Unmet(Vec<Require>),
    /// Anything else.
    Failed(Error),
}

/// Identifies a state of a catalog: the later state has the larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// The other half of a pair (see the [module](super)): names, links and edges.
///
/// # Contract
///
/// - A batch is durable and visible to every later view when [`Catalog::commit`] returns. It is applied as a whole or
///   not at all.
/// - Preconditions are checked in the order of commits. Of two batches that each invalidate a precondition of the
///   other, one is refused.
/// - A batch must not link, tag or enter content that the storage lacks. Such a change counts as a precondition that
///   does not hold.
/// - What a batch links is leased when the commit returns.
/// - A [`View`] shows one state throughout, that of a commit that is durable.
pub trait Catalog: Send + Sync + Debug {
    /// Returns a view of the current state.
    ///
    /// # Errors
    ///
    /// As storage fails: [`Error::Closing`], [`Error::NotAttempted`], [`Error::Internal`].
    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>>>;

    /// Returns the revision of the current state, or `None` if it cannot be told at once.
    ///
    /// While it is the same, views show the same.
    fn revision(&self) -> Option<Revision> {
        None
    }

    /// Applies the batch.
    ///
    /// A commit whose future is dropped may still be applied.
    ///
    /// # Errors
    ///
    /// [`CommitError::Unmet`] with every precondition that does not hold, stated or implied; nothing changed.
    /// [`CommitError::Failed`] otherwise: nothing is visible. Where storage failed while it wrote the batch, it is
    /// [`Error::ReadOnly`], and a restart may find the batch applied.
    fn commit(&self, batch: Batch<Staged>) -> BoxFuture<'_, std::result::Result<(), CommitError>>;
}

/// One state of the catalog.
///
/// # Contract
///
/// Lists are sorted by bytes. They begin after `after`, which is exclusive, and have at most `limit` entries.
///
/// # Errors
///
/// Every method may fail as storage does: [`Error::NotAttempted`], [`Error::Damaged`], [`Error::Internal`].
pub trait View: Send + Sync + Debug {
    /// Returns the repository of that name.
    fn repository<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Box<dyn RepositoryView>>>>;

    /// Lists the names of repositories.
    fn repositories<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Returns a stored blob. It does not say who may see it.
    fn blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<StoredBlob>>>;

    /// Lists repositories that link the blob, in any order.
    fn holders(&self, digest: Digest, limit: usize) -> BoxFuture<'_, Result<Vec<String>>>;
}

/// A repository in one state of the catalog.
///
/// # Contract
///
/// That of [`View`]. It may outlive the view that it comes from and shows the same state.
///
/// # Errors
///
/// Those of [`View`].
pub trait RepositoryView: Send + Sync + Debug {
    /// Returns a number that no other repository ever has, also not a later one of the same name.
    fn incarnation(&self) -> u64;

    /// Returns what a tag points at.
    fn tag<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, Result<Option<Digest>>>;

    /// Lists its tags.
    fn tags<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<String>>>;

    /// Returns one of its manifests.
    fn manifest(&self, digest: Digest) -> BoxFuture<'_, Result<Option<ManifestEntry>>>;

    /// Returns the bytes of one of its manifests, and whether an answer has to lease the manifest.
    fn manifest_blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<StoredBlob>>>;

    /// Returns a blob that it links and that is stored.
    fn blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<StoredBlob>>>;

    /// Lists its manifests whose subject is `subject`, in the order of their digests.
    fn referrers(
        &self,
        subject: Digest,
        after: Option<Digest>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<ManifestEntry>>>;
}
