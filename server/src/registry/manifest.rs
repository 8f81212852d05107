//! Pushing manifests.
//!
//! Owns: what a manifest must name that is already there, and the one commit of bytes, edges and tags.
//! Refuses: manifests whose children the repository lacks, but for the repositories where the operator allows that ("sparse").
//! A subject may be absent everywhere (distribution-spec, "Pushing Manifests with Subject"). Also refused: a manifest
//! that the repository has, pushed again as another type.
//!
//! Invariant: while a repository has a manifest, its media type stays: whoever pulled it by digest knows the type as
//! well. Repositories do not share it: what one of them answers would tell what another one holds.
//!
//! Invariant: the edges of a manifest lead to everything that it lists, also to what is not there yet (in a sparse repository, or
//! a non-distributable layer): pushed later, it is held from its first moment on, and no order of the two pushes matters. An edge
//! gives life, not visibility; only a link does that, so naming a digest shows nobody what other repositories have.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tonnage_engine::vocabulary::{Algorithm, Batch, Change, Digest, ManifestEntry, Require};

use super::attributes::Attributes;
use super::ports::{CommitError, Pinned, RepositoryView};
use super::{Error, Missing, Precondition, Registry, Result, Shortage, origin};
use crate::access::{Authorized, Push};
use crate::oci::{Child, Manifest, Place, Reference, RepositoryName, Tag};

/// A manifest of this many bytes is read off the async workers, and may list so much that few should be worked on at a time. Most
/// have a few thousand.
pub const LARGE_MANIFEST_BYTES: usize = 128 << 10;
/// Children looked up before others have a turn on the thread: about a millisecond.
const CHILDREN_A_TURN: usize = 64;
/// Children pinned before others have a turn: less than a millisecond.
const PINS_A_TURN: usize = 4096;

/// A manifest as it was pushed.
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
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedManifest {
    /// Its digest: of the reference's algorithm, SHA-256 for a tag.
    pub digest: Digest,
    /// Its subject.
    pub subject: Option<Digest>,
    /// The further tags, all of which were set.
    pub tags: Vec<Tag>,
    /// How many of the blobs and manifests it lists the repository lacked; more than none only where that is allowed.
    pub missing: usize,
}

/// What a manifest lists, as far as the commit is concerned.
#[derive(Debug, Default)]
struct Children {
    /// Edges.
    kept: Vec<Digest>,
    /// What makes sure that they are still there at commit.
    requires: Vec<Require>,
    /// Needed, and not in the repository.
    missing: Vec<Missing>,
}

/// As what a child was found, as far as it was looked for.
#[derive(Debug)]
struct FoundChild {
    manifest: bool,
    blob: bool,
    /// Where clients will look for it and not find it.
    missing: Option<Place>,
}

impl Registry {
    /// Stores a manifest and points its tags at it, all or nothing.
    pub async fn push_manifest(
        &self,
        push: &Authorized<Push>,
        pushed: ManifestPush<'_>,
    ) -> Result<PushedManifest> {
        let repository = push.repository();
        if pushed.tags.len() > self.limits.tags_per_push {
            return Err(Error::TooManyTags {
                max: self.limits.tags_per_push,
            });
        }
        let (digest, manifest) = read_manifest(&pushed).await?;
        // Before they are looked at: what is there then stays until the commit.
        let pins = self.pin_children(&manifest).await?;
        let found = self.view().await?.repository(repository.as_str()).await?;
        let found = found.as_deref();
        let (attributes, same_type) = require_type(found, digest, &manifest).await?;
        let sparse = self.is_sparse(repository);
        let children = self.find_children(found, &manifest, sparse).await?;
        let missing = children.missing.len();
        if missing > 0 && !sparse {
            return Err(Error::ManifestBlobUnknown(children.missing));
        }
        let mut requires = children.requires;
        requires.push(same_type);
        let precondition = &pushed.precondition;
        requires.extend(precondition.requires(found, pushed.reference).await?);

        let size = u64::try_from(pushed.bytes.len()).map_err(Error::internal)?;
        let subject = manifest.subject;
        let entry = ManifestEntry {
            digest,
            size,
            children: children.kept,
            subject,
            attributes,
        };
        let staged = self
            .blobs
            .put_small(pushed.bytes, digest.algorithm())
            .await?;
        let mut changes = vec![Change::PutManifest(entry)];
        let own = match pushed.reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        changes.extend(
            own.into_iter()
                .chain(&pushed.tags)
                .map(|tag| Change::SetTag {
                    tag: tag.as_str().to_owned(),
                    digest,
                }),
        );
        let batch = Batch {
            repository: repository.as_str().to_owned(),
            create_repository: true,
            origin: origin(push.requester()),
            requires,
            staged: vec![staged],
            changes,
        };
        if let Err(error) = self.catalog.commit(batch).await {
            let media_type = manifest.media_type.as_str();
            return Err(self
                .explain_refusal(repository, digest, media_type, error)
                .await);
        }
        unpin(pins).await;
        Ok(PushedManifest {
            digest,
            subject,
            tags: pushed.tags,
            missing,
        })
    }

    /// Why a commit was refused: what lost a race since the view was taken.
    async fn explain_refusal(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        media_type: &str,
        error: CommitError,
    ) -> Error {
        let unmet = match error {
            CommitError::Failed(error) => return error,
            CommitError::Unmet(unmet) => unmet,
        };
        let mut missing = Vec::new();
        for require in unmet {
            let (digest, place) = match require {
                Require::Linked(digest) | Require::Stored(digest) => (digest, Place::Blob),
                Require::Manifest(digest) => (digest, Place::Manifest),
                Require::Attributes { .. } => {
                    let again = self.recheck_type(repository, digest, media_type).await;
                    // Unless it is gone again by now.
                    return again.err().unwrap_or(Error::PreconditionFailed);
                }
                Require::Tag { .. } | Require::TagExists(_) => return Error::PreconditionFailed,
                Require::Repository | Require::LinkedIn { .. } => {
                    return Error::internal(format!(
                        "a commit was refused for {require:?}, which it did not ask"
                    ));
                }
            };
            missing.push(Missing { digest, place });
        }
        Error::ManifestBlobUnknown(missing)
    }

    async fn recheck_type(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        media_type: &str,
    ) -> Result<()> {
        let known = match self.view().await?.repository(repository.as_str()).await? {
            Some(repository) => repository.manifest(digest).await?,
            None => None,
        };
        known.map_or(Ok(()), |known| check_type(digest, &known, media_type))
    }

    /// Whether manifests of the repository may list what is not there.
    fn is_sparse(&self, repository: &RepositoryName) -> bool {
        let rules = &self.limits.sparse;
        rules.iter().any(|pattern| pattern.matches(repository))
    }

    /// Keeps what the manifest lists from being collected.
    async fn pin_children(&self, manifest: &Manifest) -> Result<Vec<Pinned>> {
        let mut pins = Vec::new();
        for turn in manifest.children.chunks(PINS_A_TURN) {
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
            // What is in memory is found without a wait, so nobody else would have a turn on this thread.
            if count % CHILDREN_A_TURN == CHILDREN_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
            let digest = child.digest;
            let found = self.find_child(repository, child).await?;
            // What may be missing may also go missing before the commit.
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
        // Only a digest that must be found in both places is looked for in both once it was found in one.
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

/// Lets go of what was pinned, a turn's worth at a time.
async fn unpin(pins: Vec<Pinned>) {
    let mut pins = pins.into_iter();
    drop(pins.next());
    for pinned in pins {
        tokio::task::yield_now().await;
        drop(pinned);
    }
}

/// The attributes of a manifest, and what makes sure at the commit that the repository does not have it as another type.
async fn require_type(
    repository: Option<&dyn RepositoryView>,
    digest: Digest,
    manifest: &Manifest,
) -> Result<(Bytes, Require)> {
    let attributes = Attributes {
        media_type: manifest.media_type.to_string(),
        artifact_type: manifest.artifact_type.clone(),
    };
    let known = match repository {
        Some(repository) => repository.manifest(digest).await?,
        None => None,
    };
    if let Some(known) = &known {
        check_type(digest, known, &attributes.media_type)?;
    }
    let attributes = attributes.encode()?;
    let seen = known.map_or_else(|| attributes.clone(), |known| known.attributes);
    let require = Require::Attributes {
        digest,
        attributes: seen,
    };
    Ok((attributes, require))
}

/// An error where the repository has the manifest as another type.
fn check_type(digest: Digest, known: &ManifestEntry, pushed: &str) -> Result<()> {
    let stored = Attributes::decode(&known.attributes)?.media_type;
    if stored == pushed {
        return Ok(());
    }
    Err(Error::ManifestTypeStored { digest, stored })
}

/// Its digest and what it says; off the async workers where that takes milliseconds.
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
    // Few at a time; who hands them to us sees to that. A thread that cannot be started costs this push and nothing else.
    let (done, judged) = oneshot::channel();
    let thread = std::thread::Builder::new().name("tonnage-parse".to_owned());
    let started = thread.spawn(move || drop(done.send(judging())));
    started.map_err(|error| Error::NotAttempted {
        shortage: Shortage::Threads,
        cause: Arc::new(error),
    })?;
    judged.await.map_err(Error::internal)?
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
