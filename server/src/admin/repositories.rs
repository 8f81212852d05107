//! Operations on repositories: lists and deletion.
//!
//! Owns: [`ListRepositories`], [`DeleteRepository`] and their answers; how a repository is found by name.

use serde::{Deserialize, Serialize};
use tonnage_engine::{Change, Digest, ManifestEntry, Repository, TagInfo, View};

use super::PAGE_ENTRIES_MAX;
use super::commit::commit;
use super::error::{AdminError, NotFound};
use super::store::AdminStore;

/// Rows counted before other tasks run on the thread.
const ROWS_BEFORE_YIELD: usize = 1000;

/// Requests a page of repositories.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListRepositories {
    /// Only names after this one.
    pub last: Option<String>,
}

/// A page of repositories, in the order of bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RepositoryPage {
    /// Their names.
    pub repositories: Vec<String>,
    /// Whether there may be more after the last.
    pub more: bool,
}

/// Requests the deletion of a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteRepository {
    /// The repository.
    pub repository: String,
    /// Whether to count the content only and delete nothing.
    pub dry_run: bool,
}

/// The content of a repository, or its content just before its deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryContent {
    /// Tags.
    pub tags: u64,
    /// Manifests.
    pub manifests: u64,
    /// Blobs, without manifests.
    pub blobs: u64,
}

pub(super) async fn list_repositories(
    store: &dyn AdminStore,
    request: &ListRepositories,
) -> Result<RepositoryPage, AdminError> {
    let view = store.view();
    let repositories = view
        .read(|view| view.repositories(request.last.as_deref(), PAGE_ENTRIES_MAX))
        .await?;
    let more = repositories.len() == PAGE_ENTRIES_MAX;
    Ok(RepositoryPage { repositories, more })
}

pub(super) async fn delete_repository(
    store: &dyn AdminStore,
    request: &DeleteRepository,
) -> Result<RepositoryContent, AdminError> {
    let repository = request.repository.as_str();
    let content = count(&store.view(), repository).await?;
    if request.dry_run {
        return Ok(content);
    }
    let changes = vec![Change::DeleteRepository];
    if !commit(store.writable()?, repository, Vec::new(), changes).await? {
        return Err(NotFound::repository(repository).into());
    }
    tracing::info!(
        repository,
        tags = content.tags,
        manifests = content.manifests,
        blobs = content.blobs,
        "the operator deleted a repository"
    );
    Ok(content)
}

/// Finds a repository by name.
pub(super) async fn find<'a>(view: &'a View, name: &str) -> Result<Repository<'a>, AdminError> {
    let found = view.read(|_| view.repository(name)).await?;
    Ok(found.ok_or_else(|| NotFound::repository(name))?)
}

/// Counts what a repository holds, page by page.
async fn count(view: &View, repository: &str) -> Result<RepositoryContent, AdminError> {
    let repository = find(view, repository).await?;
    let tags = |last: Option<&TagInfo>| {
        repository.tags(last.map(|tag| tag.tag.as_str()), ROWS_BEFORE_YIELD)
    };
    let manifests = |last: Option<&ManifestEntry>| {
        repository.manifests(last.map(|entry| &entry.digest), ROWS_BEFORE_YIELD)
    };
    let blobs = |last: Option<&Digest>| repository.links(last, ROWS_BEFORE_YIELD);
    Ok(RepositoryContent {
        tags: count_rows(view, tags).await?,
        manifests: count_rows(view, manifests).await?,
        blobs: count_rows(view, blobs).await?,
    })
}

/// Counts the rows of all pages. `page` returns the rows after the last one of the page before.
async fn count_rows<T: Send + Sync>(
    view: &View,
    page: impl Fn(Option<&T>) -> tonnage_engine::Result<Vec<T>> + Send + Sync,
) -> Result<u64, AdminError> {
    let (mut count, mut last) = (0, None);
    loop {
        let rows = view.read(|_| page(last.as_ref())).await?;
        count += rows.len() as u64;
        last = rows.into_iter().next_back();
        if last.is_none() {
            return Ok(count);
        }
        tokio::task::yield_now().await;
    }
}
