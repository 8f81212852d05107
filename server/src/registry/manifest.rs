//! Pushing manifests.
//!
//! Owns: what a manifest must name that is already there, and the one commit of bytes, edges and tags.
//! Refuses: manifests whose children the repository lacks, but for the repositories where the operator allows that ("sparse").
//! A subject may be absent everywhere (distribution-spec, "Pushing Manifests with Subject").
//!
//! Invariant: the edges of a manifest lead to everything that it lists, also to what is not there yet (in a sparse repository, or
//! a non-distributable layer): pushed later, it is held from its first moment on, and no order of the two pushes matters. An edge
//! gives life, not visibility; only a link does that, so naming a digest shows nobody what other repositories have.

use bytes::Bytes;
use tonnage_engine::{Algorithm, Digest, ManifestEntry, Require};

use super::attributes::Attributes;
use super::ports::{Change, CommitError, Pinned, View};
use super::{Error, Precondition, Registry, Result, Transaction};
use crate::access::{Authorized, Push};
use crate::oci::{Child, Manifest, Reference, RepositoryName, Role, Tag};

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
    missing: Vec<Digest>,
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
        let (digest, manifest) = judge(&pushed).await?;
        // Before they are looked at: what is there then stays until the commit.
        let pins = self.pin_children(&manifest).await;
        let view = self.view().await?;
        let children = self.find_children(&*view, repository, &manifest).await?;
        let missing = children.missing.len();
        if missing > 0 && !self.is_sparse(repository) {
            return Err(Error::ManifestBlobUnknown(children.missing));
        }
        let mut requires = children.requires;
        let precondition = &pushed.precondition;
        requires.extend(
            precondition
                .requires(&*view, repository, pushed.reference)
                .await?,
        );
        drop(view);

        let size = u64::try_from(pushed.bytes.len()).map_err(Error::internal)?;
        let attributes = Attributes {
            media_type: manifest.media_type.to_string(),
            artifact_type: manifest.artifact_type,
        };
        let subject = manifest.subject;
        let entry = ManifestEntry {
            digest,
            size,
            children: children.kept,
            subject,
            attributes: attributes.encode()?,
        };
        let staged = self
            .blobs
            .put_small(pushed.bytes, digest.algorithm())
            .await?;
        let mut changes = vec![Change::Place(staged), Change::PutManifest(entry)];
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
        let transaction = Transaction {
            caller: push.caller(),
            repository: repository.as_str(),
            create_repository: true,
            requires,
            changes,
        };
        self.commit(transaction).await.map_err(refusal)?;
        unpin(pins).await;
        Ok(PushedManifest {
            digest,
            subject,
            tags: pushed.tags,
            missing,
        })
    }

    /// Whether manifests of the repository may list what is not there.
    fn is_sparse(&self, repository: &RepositoryName) -> bool {
        let rules = &self.limits.sparse;
        rules.iter().any(|pattern| pattern.matches(repository))
    }

    /// Keeps what the manifest lists from being collected.
    async fn pin_children(&self, manifest: &Manifest) -> Vec<Pinned> {
        let mut pins = Vec::new();
        for turn in manifest.children.chunks(PINS_A_TURN) {
            if !pins.is_empty() {
                tokio::task::yield_now().await;
            }
            let digests: Vec<_> = turn.iter().map(|child| child.digest).collect();
            pins.push(self.blobs.pin(&digests));
        }
        pins
    }

    async fn find_children(
        &self,
        view: &dyn View,
        repository: &RepositoryName,
        manifest: &Manifest,
    ) -> Result<Children> {
        let sparse = self.is_sparse(repository);
        let mut children = Children::default();
        for (count, child) in manifest.children.iter().enumerate() {
            // Looking things up in memory never waits, so nobody else would have a turn on this thread.
            if count % CHILDREN_A_TURN == CHILDREN_A_TURN - 1 {
                tokio::task::yield_now().await;
            }
            let Child {
                digest,
                role,
                optional,
            } = *child;
            match self.find_child(view, repository, digest, role).await? {
                // What may be missing may also go missing before the commit.
                Some(_) if sparse => {}
                Some(require) => children.requires.push(require),
                None if optional => {}
                None => children.missing.push(digest),
            }
            children.kept.push(digest);
        }
        Ok(children)
    }

    async fn find_child(
        &self,
        view: &dyn View,
        repository: &RepositoryName,
        digest: Digest,
        role: Role,
    ) -> Result<Option<Require>> {
        let repository = repository.as_str();
        // Build caches list blobs in indexes, so an entry may be either.
        if role == Role::Entry
            && !self.blobs.is_damaged(digest)
            && view.manifest(repository, digest).await?.is_some()
        {
            return Ok(Some(Require::Manifest(digest)));
        }
        let linked = self.intact(view, repository, digest).await?.is_some();
        Ok(linked.then_some(Require::Linked(digest)))
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

/// Its digest and what it says; off the async workers where that takes milliseconds.
async fn judge(pushed: &ManifestPush<'_>) -> Result<(Digest, Manifest)> {
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
    // Few at a time; who hands them to us sees to that.
    let judged = tokio::task::spawn_blocking(judging).await;
    judged.map_err(Error::internal)?
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

/// What lost a race since the view was taken.
fn refusal(error: CommitError) -> Error {
    let unmet = match error {
        CommitError::Failed(error) => return error,
        CommitError::Unmet(unmet) => unmet,
    };
    let mut missing = Vec::new();
    for require in &unmet {
        match require {
            Require::Linked(digest) | Require::Manifest(digest) | Require::Stored(digest) => {
                missing.push(*digest);
            }
            Require::Tag { .. } | Require::TagExists(_) => return Error::PreconditionFailed,
            Require::Repository | Require::LinkedIn { .. } => {
                return Error::internal(format!(
                    "a commit was refused for {require:?}, which it did not ask"
                ));
            }
        }
    }
    Error::ManifestBlobUnknown(missing)
}
