//! Pushes manifests.
//!
//! Owns: the check that a manifest's children exist, and the one commit of bytes, edges and tags.
//! Refuses: manifests whose children the repository lacks, except in repositories for which the operator allows that
//! ("sparse"). A subject may be absent (distribution-spec, "Pushing Manifests with Subject"). A stored manifest that
//! is pushed again with another type is also rejected.
//!
//! Invariant: the media type of a manifest does not change while its repository has it, because clients that pulled it
//! by digest know the type. Repositories do not share the type: the answers of one would reveal the content of
//! another. The commit compares the attributes with those that were checked. If another push changed them meanwhile,
//! the new ones are checked.
//!
//! Invariant: a manifest has edges to everything that it lists, also to content that does not exist yet (in a sparse
//! repository, or a non-distributable layer). If that is pushed later, it is referenced at once, so the order of the
//! two pushes does not matter. An edge keeps content alive, but only a link makes it visible. So a manifest cannot
//! reveal content of other repositories by naming its digest.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tonnage_engine::vocabulary::{Algorithm, Batch, Change, Digest, ManifestEntry, Require};

use super::attributes::{Attributes, PushRecord};
use super::ports::{CommitError, Pinned, RepositoryView};
use super::{Error, Missing, Precondition, Registry, Result, Shortage, origin};
use crate::access::{Authorized, Push};
use crate::oci::{Child, Manifest, Place, Reference, RepositoryName, Tag};

/// Size in bytes from which a manifest is large: it is parsed outside the async workers, and only a few are processed
/// at a time. Most manifests have a few thousand bytes.
pub const LARGE_MANIFEST_BYTES: usize = 128 << 10;
/// Children that are looked up before the task yields: about a millisecond.
const CHILDREN_PER_YIELD: usize = 64;
/// Children that are pinned before the task yields: less than a millisecond.
const PINS_PER_YIELD: usize = 4096;
/// Attempts at a push while other pushes enter the same manifest. Two changes can happen to one that stays: it is
/// entered, and a build replaces the record of its push.
const ATTEMPTS_MAX: usize = 16;

/// A manifest to be pushed.
#[derive(Debug)]
pub struct ManifestPush<'a> {
    /// The tag or digest in the path.
    pub reference: &'a Reference,
    /// Further tags, of `?tag=`.
    pub tags: Vec<Tag>,
    /// Content-Type.
    pub content_type: Option<&'a str>,
    /// The body.
    pub bytes: Bytes,
    /// If-Match, If-None-Match.
    pub precondition: Precondition,
    /// Those of the tags that the sender may set, but not point at something else.
    pub protected: Vec<Tag>,
}

impl ManifestPush<'_> {
    /// Returns the tag in the path, if there is one, and the further ones.
    fn all_tags(&self) -> impl Iterator<Item = &Tag> {
        let own = match self.reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        own.into_iter().chain(&self.tags)
    }
}

/// The result of a manifest push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedManifest {
    /// Its digest: of the reference's algorithm, SHA-256 for a tag.
    pub digest: Digest,
    /// Its subject.
    pub subject: Option<Digest>,
    /// The further tags, all of which were set.
    pub tags: Vec<Tag>,
    /// Number of listed blobs and manifests that the repository lacks. It is 0 unless the repository is sparse.
    pub missing: usize,
}

/// The children of a manifest, for its commit.
#[derive(Debug, Default)]
struct Children {
    /// Edges.
    kept: Vec<Digest>,
    /// Preconditions that they still exist at the commit.
    requires: Vec<Require>,
    /// Required children that are not in the repository.
    missing: Vec<Missing>,
}

/// The places in which a child was found.
#[derive(Debug)]
struct FoundChild {
    manifest: bool,
    blob: bool,
    /// Returns where clients will look for it and not find it.
    missing: Option<Place>,
}

/// Returns the preconditions that protected tags are not pointed at something else.
async fn require_free(
    repository: Option<&dyn RepositoryView>,
    tags: &[Tag],
    digest: Digest,
) -> Result<Vec<Require>> {
    let mut requires = Vec::new();
    for tag in tags {
        let current = match repository {
            Some(repository) => repository.tag(tag.as_str()).await?,
            None => None,
        };
        if current.is_some_and(|current| current != digest) {
            return Err(Error::TagProtected(tag.as_str().to_owned()));
        }
        let tag = tag.as_str().to_owned();
        requires.push(Require::Tag {
            tag,
            digest: current,
        });
    }
    Ok(requires)
}

impl Registry {
    /// Stores a manifest and points its tags at it, all or nothing.
    pub async fn push_manifest(
        &self,
        push: &Authorized<Push>,
        pushed: ManifestPush<'_>,
    ) -> Result<PushedManifest> {
        if pushed.tags.len() > self.limits.tags_per_push {
            return Err(Error::TooManyTags {
                max: self.limits.tags_per_push,
            });
        }
        let (digest, manifest) = read_manifest(&pushed).await?;
        // Pinned before they are looked up, so that what is found stays until the commit.
        let pins = self.pin_children(&manifest).await?;
        let record = PushRecord::now(push.requester());
        let mut missing = None;
        for _ in 0..ATTEMPTS_MAX {
            let attempt = self.try_push(push, &pushed, (digest, &manifest), record.clone());
            missing = attempt.await?;
            if missing.is_some() {
                break;
            }
        }
        // Others removed and pushed it again and again.
        let missing = missing.ok_or(Error::PreconditionFailed)?;
        unpin(pins).await;
        Ok(PushedManifest {
            digest,
            subject: manifest.subject,
            tags: pushed.tags,
            missing,
        })
    }

    /// Checks and commits a manifest on the newest state. Returns how many of its children are missing, or `None` if
    /// another push changed its attributes meanwhile.
    async fn try_push(
        &self,
        push: &Authorized<Push>,
        pushed: &ManifestPush<'_>,
        (digest, manifest): (Digest, &Manifest),
        record: PushRecord,
    ) -> Result<Option<usize>> {
        let repository = push.repository();
        let found = self.view().await?.repository(repository.as_str()).await?;
        let found = found.as_deref();
        let (attributes, same_attributes) =
            require_attributes(found, digest, manifest, record).await?;
        let sparse = self.is_sparse(repository);
        let children = self.find_children(found, manifest, sparse).await?;
        let missing = children.missing.len();
        if missing > 0 && !sparse {
            return Err(Error::ManifestBlobUnknown(children.missing));
        }
        let mut requires = children.requires;
        requires.push(same_attributes);
        requires.extend(
            pushed
                .precondition
                .requires(found, pushed.reference)
                .await?,
        );
        requires.extend(require_free(found, &pushed.protected, digest).await?);

        let entry = ManifestEntry {
            digest,
            size: u64::try_from(pushed.bytes.len()).map_err(Error::internal)?,
            children: children.kept,
            subject: manifest.subject,
            attributes,
        };
        let staged = self
            .blobs
            .put_small(pushed.bytes.clone(), digest.algorithm())
            .await?;
        let mut changes = vec![Change::PutManifest(entry)];
        changes.extend(pushed.all_tags().map(|tag| Change::SetTag {
            tag: tag.as_str().to_owned(),
            digest,
        }));
        let batch = Batch {
            repository: repository.as_str().to_owned(),
            create_repository: true,
            origin: origin(push.requester()),
            requires,
            staged: vec![staged],
            changes,
        };
        match self.catalog.commit(batch).await {
            Ok(()) => Ok(Some(missing)),
            Err(CommitError::Failed(error)) => Err(error),
            Err(CommitError::Unmet(unmet)) => explain_refusal(unmet, &pushed.protected),
        }
    }

    /// Returns whether manifests of the repository may list content that it lacks.
    fn is_sparse(&self, repository: &RepositoryName) -> bool {
        let rules = &self.limits.sparse;
        rules.iter().any(|pattern| pattern.matches(repository))
    }

    /// Pins what the manifest lists.
    async fn pin_children(&self, manifest: &Manifest) -> Result<Vec<Pinned>> {
        let mut pins = Vec::new();
        for turn in manifest.children.chunks(PINS_PER_YIELD) {
            if !pins.is_empty() {
                tokio::task::yield_now().await;
            }
            let digests: Vec<_> = turn.iter().map(|child| child.digest).collect();
            pins.push(self.blobs.pin(&digests).await?);
        }
        Ok(pins)
    }

    async fn find_children(
        &self,
        repository: Option<&dyn RepositoryView>,
        manifest: &Manifest,
        sparse: bool,
    ) -> Result<Children> {
        let mut children = Children::default();
        for (count, child) in manifest.children.iter().enumerate() {
            // Rows in memory are found without a wait, so other tasks would not run on this thread.
            if count % CHILDREN_PER_YIELD == CHILDREN_PER_YIELD - 1 {
                tokio::task::yield_now().await;
            }
            let digest = child.digest;
            let found = self.find_child(repository, child).await?;
            // An optional child may also be removed before the commit.
            if !sparse {
                let manifest = found.manifest.then_some(Require::Manifest(digest));
                let blob = found.blob.then_some(Require::Linked(digest));
                children.requires.extend(manifest.into_iter().chain(blob));
            }
            let missing = found.missing.filter(|_| !child.optional);
            let missing = missing.map(|place| Missing { digest, place });
            children.missing.extend(missing);
            children.kept.push(digest);
        }
        Ok(children)
    }

    async fn find_child(
        &self,
        repository: Option<&dyn RepositoryView>,
        child: &Child,
    ) -> Result<FoundChild> {
        let (digest, place) = (child.digest, child.place);
        let manifest = match repository {
            Some(repository) if place != Place::Blob && !self.blobs.is_damaged(digest).await? => {
                repository.manifest(digest).await?.is_some()
            }
            Some(_) | None => false,
        };
        // After a digest was found in one place, it is looked up in the other only if both are required.
        let blob = (matches!(place, Place::Blob | Place::Both)
            || place == Place::Either && !manifest)
            && self.has_intact(repository, digest).await?;
        let missing = match place {
            Place::Manifest | Place::Both if !manifest => Some(Place::Manifest),
            Place::Blob | Place::Both if !blob => Some(Place::Blob),
            Place::Either if !manifest && !blob => Some(Place::Either),
            Place::Blob | Place::Manifest | Place::Either | Place::Both => None,
        };
        Ok(FoundChild {
            manifest,
            blob,
            missing,
        })
    }
}

/// Drops pins, and yields after every few.
async fn unpin(pins: Vec<Pinned>) {
    let mut pins = pins.into_iter();
    drop(pins.next());
    for pinned in pins {
        tokio::task::yield_now().await;
        drop(pinned);
    }
}

/// Returns why a commit was refused: another request changed something since the view was taken. `Ok` if it is another
/// push of the manifest, which is no reason to fail.
fn explain_refusal(unmet: Vec<Require>, protected: &[Tag]) -> Result<Option<usize>> {
    if unmet
        .iter()
        .any(|require| matches!(require, Require::Attributes { .. }))
    {
        return Ok(None);
    }
    let mut missing = Vec::new();
    for require in unmet {
        let (digest, place) = match require {
            Require::Linked(digest) | Require::Stored(digest) => (digest, Place::Blob),
            Require::Manifest(digest) => (digest, Place::Manifest),
            Require::Tag { tag, .. } if protected.iter().any(|one| one.as_str() == tag) => {
                return Err(Error::TagProtected(tag));
            }
            Require::Tag { .. } | Require::TagExists(_) => return Err(Error::PreconditionFailed),
            Require::Repository | Require::LinkedIn { .. } | Require::Attributes { .. } => {
                return Err(Error::internal(format!(
                    "a commit was refused for {require:?}, which it did not require"
                )));
            }
        };
        missing.push(Missing { digest, place });
    }
    Err(Error::ManifestBlobUnknown(missing))
}

/// Returns the attributes of a manifest, and a precondition that the repository does not have it with others than
/// were checked: another type fails.
async fn require_attributes(
    repository: Option<&dyn RepositoryView>,
    digest: Digest,
    manifest: &Manifest,
    record: PushRecord,
) -> Result<(Bytes, Require)> {
    let types = Attributes {
        media_type: manifest.media_type.to_string(),
        artifact_type: manifest.artifact_type.clone(),
    };
    let known = match repository {
        Some(repository) => repository.manifest(digest).await?,
        None => None,
    };
    if let Some(known) = &known {
        check_type(digest, known, &types.media_type)?;
    }
    let known = known.map(|known| known.attributes);
    let attributes = types.encode(&record.or_known(known.as_deref()))?;
    let require = Require::Attributes {
        digest,
        attributes: known.unwrap_or_else(|| attributes.clone()),
    };
    Ok((attributes, require))
}

/// Fails if the repository has the manifest with another type.
fn check_type(digest: Digest, known: &ManifestEntry, pushed: &str) -> Result<()> {
    let stored = Attributes::decode(&known.attributes)?.media_type;
    if stored == pushed {
        return Ok(());
    }
    Err(Error::ManifestTypeStored { digest, stored })
}

/// Computes the digest of a manifest and parses it, outside the async workers if that takes milliseconds.
async fn read_manifest(pushed: &ManifestPush<'_>) -> Result<(Digest, Manifest)> {
    let expected = match pushed.reference {
        Reference::Tag(_) => None,
        Reference::Digest(expected) => Some(*expected),
    };
    let (bytes, content_type) = (pushed.bytes.clone(), pushed.content_type.map(str::to_owned));
    let judging = move || {
        let digest = digest_of(&bytes, expected)?;
        let manifest = Manifest::parse(&bytes, content_type.as_deref())?;
        Ok((digest, manifest))
    };
    if pushed.bytes.len() < LARGE_MANIFEST_BYTES {
        return judging();
    }
    // The caller limits how many run at a time. If a thread cannot be started, only this push fails.
    let (done, parsed) = oneshot::channel();
    let thread = std::thread::Builder::new().name("tonnage-parse".to_owned());
    let started = thread.spawn(move || drop(done.send(judging())));
    started.map_err(|error| Error::NotAttempted {
        shortage: Shortage::Threads,
        cause: Arc::new(error),
    })?;
    parsed.await.map_err(Error::internal)?
}

fn digest_of(bytes: &[u8], expected: Option<Digest>) -> Result<Digest> {
    let Some(expected) = expected else {
        return Ok(Digest::of(Algorithm::Sha256, bytes));
    };
    let found = Digest::of(expected.algorithm(), bytes);
    if found == expected {
        Ok(found)
    } else {
        Err(Error::DigestMismatch {
            expected,
            found: Box::new(found),
        })
    }
}
