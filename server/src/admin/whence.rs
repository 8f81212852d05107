//! The origin of content: which manifests have a digest, and which push entered each.
//!
//! Owns: [`Whence`] and its answer. Refuses: what a push records (`registry::attributes`).
//!
//! Invariant: an answer is bounded, however many manifests share a layer.

use serde::{Deserialize, Serialize};
use tonnage_engine::{Digest, View};

use super::error::AdminError;
use super::store::AdminStore;
use crate::registry::PushRecord;

/// Most manifests of an answer, and most repositories.
const ENTRIES_MAX: usize = 100;
/// Most tags of a manifest in an answer.
const TAGS_MAX: usize = 20;

/// Asks where the content of a digest comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Whence {
    /// The digest of a manifest, a config or a layer.
    pub digest: String,
}

/// Where the content of a digest comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentOrigin {
    /// The digest.
    pub digest: String,
    /// Whether the store has the content. What it lacks may be listed by manifests all the same.
    pub stored: bool,
    /// The first manifests that are the digest or list it, directly or through others of their repository.
    pub manifests: Vec<ManifestOrigin>,
    /// Whether there are more manifests.
    pub more_manifests: bool,
    /// The first repositories that have it as a blob, whether or not a manifest lists it.
    pub repositories: Vec<String>,
    /// Whether there are more repositories.
    pub more_repositories: bool,
}

/// A manifest and the push that entered it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestOrigin {
    /// Its repository.
    pub repository: String,
    /// Its digest.
    pub digest: String,
    /// Its first tags.
    pub tags: Vec<String>,
    /// Whether it has more tags.
    pub more_tags: bool,
    /// The push; `None` if it was not recorded.
    pub pushed: Option<PushRecord>,
}

pub(super) async fn whence(
    store: &dyn AdminStore,
    request: &Whence,
) -> Result<ContentOrigin, AdminError> {
    let text = &request.digest;
    let invalid = |error| AdminError::Invalid(format!("{text}: {error}"));
    let digest: Digest = text.parse().map_err(invalid)?;
    let view = store.view();
    let limit = ENTRIES_MAX + 1;
    let stored = view.read(|view| view.blob(&digest)).await?.is_some();
    let mut repositories = view.read(|view| view.holders(&digest, limit)).await?;
    let mut found = view
        .read(|view| view.manifests_with(&digest, limit))
        .await?;
    let more_manifests = found.len() > ENTRIES_MAX;
    let more_repositories = repositories.len() > ENTRIES_MAX;
    found.truncate(ENTRIES_MAX);
    repositories.truncate(ENTRIES_MAX);
    let mut manifests = Vec::with_capacity(found.len());
    for (repository, manifest) in found {
        manifests.extend(origin(&view, repository, &manifest).await?);
        tokio::task::yield_now().await;
    }
    Ok(ContentOrigin {
        digest: digest.to_string(),
        stored,
        manifests,
        more_manifests,
        repositories,
        more_repositories,
    })
}

/// Reads the origin of a manifest; `None` if the repository does not have it.
async fn origin(
    view: &View,
    name: String,
    digest: &Digest,
) -> Result<Option<ManifestOrigin>, AdminError> {
    let read = |view: &View| {
        let Some(repository) = view.repository(&name)? else {
            return Ok(None);
        };
        let entry = repository.manifest(digest)?;
        Ok(entry.zip(Some(repository.tags_at(digest, TAGS_MAX + 1)?)))
    };
    let found = view.read(read).await?;
    Ok(found.map(|(entry, mut tags)| {
        let more_tags = tags.len() > TAGS_MAX;
        tags.truncate(TAGS_MAX);
        ManifestOrigin {
            digest: digest.to_string(),
            tags,
            more_tags,
            pushed: PushRecord::decode(&entry.attributes),
            repository: name,
        }
    }))
}
