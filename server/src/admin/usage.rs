//! Operations on usage: what repositories have, and what a deletion would free.
//!
//! Owns: [`ListUsage`], [`TryDeletion`] and their answers. Refuses: counting and the rules of collection, which the
//! engine has.

use serde::{Deserialize, Serialize};
use tonnage_engine::{DeletionTrial, Digest, Freed, Repository, RepositoryUsage, View};

use super::PAGE_ENTRIES_MAX;
use super::error::{AdminError, NotFound};
use super::repositories::find;
use super::store::AdminStore;
use crate::oci::pattern::{InvalidPattern, RepositoryPattern};

/// Requests a page of the usage of repositories.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListUsage {
    /// A name, everything below one (`team/*`), or `*`.
    pub pattern: String,
    /// Only repositories after this one.
    pub last: Option<String>,
}

/// A page of usages, in the order of the names' bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsagePage {
    /// The repositories that the pattern selects.
    pub repositories: Vec<UsageEntry>,
    /// Whether there may be more after the last.
    pub more: bool,
}

/// The usage of a repository. A deleted repository counts as another one until its rows are removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEntry {
    /// Its name.
    pub repository: String,
    /// Blobs that it has, manifests included.
    pub blobs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Blobs that no other repository has.
    pub unique_blobs: u64,
    /// Their payload bytes.
    pub unique_bytes: u64,
    /// Blobs that other repositories have, too.
    pub shared_blobs: u64,
    /// Their payload bytes.
    pub shared_bytes: u64,
}

/// Requests what a deletion would free. Deletes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TryDeletion {
    /// The repository.
    pub repository: String,
    /// The manifest that is deleted; without one, the whole repository.
    pub manifest: Option<ManifestReference>,
}

/// A manifest of a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManifestReference {
    /// The one that this tag points at.
    Tag(String),
    /// The one with this digest.
    Digest(String),
}

/// The blobs that collection would remove after a deletion, once their grace is over. What nothing references already
/// is not among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionEffect {
    /// The repository.
    pub repository: String,
    /// The manifest, if not the whole repository is deleted.
    pub manifest: Option<String>,
    /// Number of blobs, manifests included.
    pub blobs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// The part of these bytes in segments that they share with other blobs.
    pub shared_segment_bytes: u64,
}

impl UsageEntry {
    fn new(repository: String, usage: RepositoryUsage) -> Self {
        Self {
            repository,
            blobs: usage.blobs,
            bytes: usage.bytes,
            unique_blobs: usage.unique_blobs,
            unique_bytes: usage.unique_bytes,
            shared_blobs: usage.blobs.saturating_sub(usage.unique_blobs),
            shared_bytes: usage.bytes.saturating_sub(usage.unique_bytes),
        }
    }
}

pub(super) async fn list_usage(
    store: &dyn AdminStore,
    request: &ListUsage,
) -> Result<UsagePage, AdminError> {
    let pattern: RepositoryPattern = request
        .pattern
        .parse()
        .map_err(|error: InvalidPattern| AdminError::Invalid(error.to_string()))?;
    let view = store.view();
    if let Some(name) = pattern.name() {
        let repository = find(&view, name.as_str()).await?;
        let entry = entry(&view, name.as_str(), &repository).await?;
        return Ok(UsagePage {
            repositories: vec![entry],
            more: false,
        });
    }
    let prefix = pattern.prefix();
    let last = request.last.as_ref().unwrap_or(&prefix).as_str();
    let names = view
        .read(|view| view.repositories(Some(last), PAGE_ENTRIES_MAX))
        .await?;
    let mut page = UsagePage {
        more: names.len() == PAGE_ENTRIES_MAX,
        repositories: Vec::new(),
    };
    for name in names {
        if !name.starts_with(&prefix) {
            page.more = false;
            break;
        }
        let repository = find(&view, &name).await?;
        page.repositories
            .push(entry(&view, &name, &repository).await?);
    }
    Ok(page)
}

async fn entry(
    view: &View,
    name: &str,
    repository: &Repository<'_>,
) -> Result<UsageEntry, AdminError> {
    let usage = view.read(|_| repository.usage()).await?;
    Ok(UsageEntry::new(name.to_owned(), usage))
}

pub(super) async fn try_deletion(
    store: &dyn AdminStore,
    request: &TryDeletion,
) -> Result<DeletionEffect, AdminError> {
    let view = store.view();
    let repository = find(&view, &request.repository).await?;
    let (manifest, mut trial) = match &request.manifest {
        None => (None, DeletionTrial::of_repository(&repository)),
        Some(reference) => {
            let digest = find_manifest(&view, &repository, request, reference).await?;
            let trial = DeletionTrial::of_manifest(&repository, digest);
            (Some(digest.to_string()), trial)
        }
    };
    while trial.step(&view).await? {
        tokio::task::yield_now().await;
    }
    let Freed {
        blobs,
        bytes,
        shared_segment_bytes,
    } = trial.freed();
    Ok(DeletionEffect {
        repository: request.repository.clone(),
        manifest,
        blobs,
        bytes,
        shared_segment_bytes,
    })
}

async fn find_manifest(
    view: &View,
    repository: &Repository<'_>,
    request: &TryDeletion,
    reference: &ManifestReference,
) -> Result<Digest, AdminError> {
    let missing = |tags, manifest| NotFound {
        repository: request.repository.clone(),
        tags,
        manifest,
    };
    match reference {
        ManifestReference::Tag(tag) => {
            let found = view.read(|_| repository.tag(tag)).await?;
            let found = found.ok_or_else(|| missing(vec![tag.clone()], None))?;
            Ok(found.digest)
        }
        ManifestReference::Digest(text) => {
            let invalid = |error| AdminError::Invalid(format!("{text}: {error}"));
            let digest: Digest = text.parse().map_err(invalid)?;
            let found = view.read(|_| repository.manifest(&digest)).await?;
            found.ok_or_else(|| missing(Vec::new(), Some(text.clone())))?;
            Ok(digest)
        }
    }
}
