//! What operators do with a store by name: lists of repositories and tags, and their deletion.
//!
//! Owns: [`repositories`], [`tags`], [`delete_repository`], [`delete_tags`], the same for the socket of a running
//! server and for commands on a closed store, and the requests and answers of the socket.
//! Refuses: deciding who may ask; whoever may open the store's files may.
//!
//! Invariants: a list is asked for page by page, each of one state, so that its memory does not grow with the store; a
//! deletion is one transaction: all of it or nothing, also of many tags.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tonnage_engine::{Batch, Change, Error, Origin, Repository, Require, Store, TagInfo, View};

/// Most entries of a page.
pub const PAGE_MAX: usize = 1000;
/// Rows counted before other tasks run on the thread.
const ROWS_BEFORE_YIELD: usize = 1000;
/// The actor in the journal.
const ACTOR: &str = "operator";

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

/// Requests a page of a repository's tags.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListTags {
    /// The repository.
    pub repository: String,
    /// Only tags after this one.
    pub last: Option<String>,
}

/// A page of tags, in the order of bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TagPage {
    /// The tags.
    pub tags: Vec<TagEntry>,
    /// Whether there may be more after the last.
    pub more: bool,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagEntry {
    /// Its name.
    pub tag: String,
    /// What it points at.
    pub digest: String,
    /// When it was set, in Unix milliseconds.
    pub set_unix_ms: u64,
}

/// Requests the deletion of a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteRepository {
    /// The repository.
    pub repository: String,
    /// Report what it holds, and delete nothing.
    pub dry_run: bool,
}

/// What a repository held, or holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Tags.
    pub tags: u64,
    /// Manifests.
    pub manifests: u64,
    /// Blobs, without manifests.
    pub blobs: u64,
}

/// Requests the deletion of tags, all or none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteTags {
    /// The repository.
    pub repository: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Report what they point at, and delete nothing.
    pub dry_run: bool,
}

/// The tags that were deleted, or would be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeletedTags {
    /// With what they pointed at.
    pub tags: Vec<TagEntry>,
}

/// Why a request failed.
#[derive(Debug)]
pub enum Refusal {
    /// What was named does not exist.
    Missing(Missing),
    /// The store failed.
    Failed(Error),
}

/// What does not exist: a repository, or tags of one that does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The repository.
    pub repository: String,
    /// The tags; if empty, the repository itself.
    pub tags: Vec<String>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn no_repository(name: &str) -> Refusal {
    Refusal::Missing(Missing {
        repository: name.to_owned(),
        tags: Vec::new(),
    })
}

/// A page of repositories.
pub async fn repositories(
    view: &View,
    asked: &ListRepositories,
) -> Result<RepositoryPage, Refusal> {
    let repositories = view
        .read(|view| view.repositories(asked.last.as_deref(), PAGE_MAX))
        .await?;
    let more = repositories.len() == PAGE_MAX;
    Ok(RepositoryPage { repositories, more })
}

async fn find<'a>(view: &'a View, name: &str) -> Result<Repository<'a>, Refusal> {
    let found = view.read(|_| view.repository(name)).await?;
    found.ok_or_else(|| no_repository(name))
}

/// A page of a repository's tags.
pub async fn tags(view: &View, asked: &ListTags) -> Result<TagPage, Refusal> {
    let found = find(view, &asked.repository).await?;
    let found = view
        .read(|_| found.tags(asked.last.as_deref(), PAGE_MAX))
        .await?;
    let more = found.len() == PAGE_MAX;
    let tags = found.into_iter().map(TagEntry::from).collect();
    Ok(TagPage { tags, more })
}

impl From<TagInfo> for TagEntry {
    fn from(found: TagInfo) -> Self {
        Self {
            tag: found.tag,
            digest: found.digest.to_string(),
            set_unix_ms: found.unix_ms,
        }
    }
}

/// What a repository holds, counted page by page.
pub async fn holdings(view: &View, repository: &str) -> Result<Holdings, Refusal> {
    let repository = find(view, repository).await?;
    let (mut tags, mut manifests, mut blobs) = (0, 0, 0);
    let mut last = None;
    loop {
        let page = view
            .read(|_| repository.tags(last.as_deref(), ROWS_BEFORE_YIELD))
            .await?;
        tags += page.len() as u64;
        let Some(found) = page.into_iter().next_back() else {
            break;
        };
        last = Some(found.tag);
        tokio::task::yield_now().await;
    }
    let mut last = None;
    loop {
        let page = view
            .read(|_| repository.manifests(last.as_ref(), ROWS_BEFORE_YIELD))
            .await?;
        manifests += page.len() as u64;
        let Some(found) = page.last() else { break };
        last = Some(found.digest);
        tokio::task::yield_now().await;
    }
    let mut last = None;
    loop {
        let page = view
            .read(|_| repository.links(last.as_ref(), ROWS_BEFORE_YIELD))
            .await?;
        blobs += page.len() as u64;
        let Some(found) = page.last() else { break };
        last = Some(*found);
        tokio::task::yield_now().await;
    }
    Ok(Holdings {
        tags,
        manifests,
        blobs,
    })
}

/// Deletes a repository with everything in it. Returns what it held just before.
pub async fn delete_repository(store: &Store, repository: &str) -> Result<Holdings, Refusal> {
    let held = holdings(&store.view(), repository).await?;
    let changes = vec![Change::DeleteRepository];
    if !commit(store, repository, Vec::new(), changes).await? {
        return Err(no_repository(repository));
    }
    tracing::info!(
        repository,
        tags = held.tags,
        manifests = held.manifests,
        blobs = held.blobs,
        "the operator deleted a repository"
    );
    Ok(held)
}

/// What the tags point at.
pub async fn find_tags(
    view: &View,
    repository: &str,
    names: &[String],
) -> Result<Vec<TagEntry>, Refusal> {
    let found = look_up(view, repository, names).await?;
    Ok(found.into_iter().map(TagEntry::from).collect())
}

/// The named tags, each once; or those that are missing.
async fn look_up(view: &View, repository: &str, names: &[String]) -> Result<Vec<TagInfo>, Refusal> {
    let here = find(view, repository).await?;
    let names: BTreeSet<&String> = names.iter().collect();
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match view.read(|_| here.tag(name)).await? {
            Some(tag) => found.push(tag),
            None => missing.push(name.clone()),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    Err(Refusal::Missing(Missing {
        repository: repository.to_owned(),
        tags: missing,
    }))
}

/// Deletes tags, all or none; their manifests stay. Returns what they pointed at when they were deleted.
pub async fn delete_tags(
    store: &Store,
    repository: &str,
    names: &[String],
) -> Result<Vec<TagEntry>, Refusal> {
    // A commit fails only if somebody else moved or deleted one of them; then they are looked up again.
    loop {
        let found = look_up(&store.view(), repository, names).await?;
        let requires = found.iter().map(|tag| Require::Tag {
            tag: tag.tag.clone(),
            digest: Some(tag.digest),
        });
        let changes = found.iter().map(|tag| Change::DeleteTag(tag.tag.clone()));
        if commit(store, repository, requires.collect(), changes.collect()).await? {
            tracing::info!(repository, tags = found.len(), "the operator deleted tags");
            return Ok(found.into_iter().map(TagEntry::from).collect());
        }
    }
}

/// Commits; false if a precondition does not hold, because somebody else changed the repository.
async fn commit(
    store: &Store,
    repository: &str,
    requires: Vec<Require>,
    changes: Vec<Change>,
) -> Result<bool, Refusal> {
    let batch = Batch {
        repository: repository.to_owned(),
        create_repository: false,
        requires,
        changes,
        origin: Origin {
            actor: ACTOR.to_owned(),
            request: String::new(),
        },
    };
    match store.commit(batch).await {
        Ok(_) => Ok(true),
        Err(Error::Unmet(_)) => Ok(false),
        Err(error) => Err(Refusal::Failed(error)),
    }
}
