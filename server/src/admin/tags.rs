//! Operations on tags: lists and deletion.
//!
//! Owns: [`ListTags`], [`DeleteTags`] and their answers.
//! Refuses: deleting manifests; they stay, and can be tagged again by digest.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tonnage_engine::{Change, Require, TagInfo, View};

use super::PAGE_ENTRIES_MAX;
use super::commit::commit;
use super::error::{AdminError, NotFound};
use super::repositories::find;
use super::store::AdminStore;

/// Most tags that one request deletes.
const DELETED_TAGS_MAX: usize = 1000;
/// Attempts at a deletion whose tags others change meanwhile.
const ATTEMPTS_MAX: usize = 1000;

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
    /// The manifest that it points at.
    pub digest: String,
    /// When it was set, in Unix milliseconds.
    pub set_unix_ms: u64,
}

/// Requests the deletion of tags, all or none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteTags {
    /// The repository.
    pub repository: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether to look the tags up only and delete nothing.
    pub dry_run: bool,
}

/// The tags that were deleted, or would be, with what they pointed at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeletedTags {
    /// The tags.
    pub tags: Vec<TagEntry>,
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

impl From<Vec<TagInfo>> for DeletedTags {
    fn from(found: Vec<TagInfo>) -> Self {
        let tags = found.into_iter().map(TagEntry::from).collect();
        Self { tags }
    }
}

pub(super) async fn list_tags(
    store: &dyn AdminStore,
    request: &ListTags,
) -> Result<TagPage, AdminError> {
    let view = store.view();
    let repository = find(&view, &request.repository).await?;
    let found = view
        .read(|_| repository.tags(request.last.as_deref(), PAGE_ENTRIES_MAX))
        .await?;
    let more = found.len() == PAGE_ENTRIES_MAX;
    let tags = found.into_iter().map(TagEntry::from).collect();
    Ok(TagPage { tags, more })
}

pub(super) async fn delete_tags(
    store: &dyn AdminStore,
    request: &DeleteTags,
) -> Result<DeletedTags, AdminError> {
    let repository = request.repository.as_str();
    if request.tags.is_empty() || request.tags.len() > DELETED_TAGS_MAX {
        return Err(AdminError::Invalid(format!(
            "a request deletes 1 to {DELETED_TAGS_MAX} tags, and this one names {}",
            request.tags.len()
        )));
    }
    if request.dry_run {
        return Ok(look_up(&store.view(), request).await?.into());
    }
    // A commit fails only if another request moved or deleted one of them; then they are looked up again.
    for _ in 0..ATTEMPTS_MAX {
        let found = look_up(&store.view(), request).await?;
        let requires = found.iter().map(|tag| Require::Tag {
            tag: tag.tag.clone(),
            digest: Some(tag.digest),
        });
        let changes = found.iter().map(|tag| Change::DeleteTag(tag.tag.clone()));
        let (requires, changes) = (requires.collect(), changes.collect());
        if commit(store.writable()?, repository, requires, changes).await? {
            tracing::info!(repository, tags = found.len(), "the operator deleted tags");
            return Ok(found.into());
        }
    }
    Err(AdminError::Contended)
}

/// Looks up the named tags, each once. Returns [`AdminError::NotFound`] with those that are missing.
async fn look_up(view: &View, request: &DeleteTags) -> Result<Vec<TagInfo>, AdminError> {
    let repository = find(view, &request.repository).await?;
    let names: BTreeSet<&String> = request.tags.iter().collect();
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match view.read(|_| repository.tag(name)).await? {
            Some(tag) => found.push(tag),
            None => missing.push(name.clone()),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    Err(AdminError::NotFound(NotFound {
        repository: request.repository.clone(),
        tags: missing,
        manifest: None,
    }))
}
