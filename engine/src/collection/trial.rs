//! What the deletion of a manifest or repository would make garbage.
//!
//! Owns: [`DeletionTrial`], a local trial over what is asked: it looks at what the deletion would take a reference
//! from, and for each such digest at its references, until one is found that stays. Refuses: leases, and deleting
//! anything.
//!
//! The rules are those of [`super::rules`], for the state after the deletion and after all purges. So references of
//! repositories and manifests that were deleted before do not count. What nothing references already is not counted: it
//! goes without the deletion.
//!
//! Invariants: each digest is counted once. Memory does not grow with the size of what is asked.

use crate::catalog::{Repository, View};
use crate::digest::Digest;
use crate::error::Result;
use crate::extent::Layout;
use crate::format::transaction::RepositoryId;

/// Children that one step looks at.
const STEP_CHILDREN: usize = 64;

/// Blobs that nothing would reference any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Number of blobs.
    pub blobs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// The part of these bytes that is in shared segments.
    pub shared_segment_bytes: u64,
}

/// A trial of a deletion in one state. It is computed in steps, so that other work runs between them.
#[derive(Debug, Clone)]
pub struct DeletionTrial {
    repository: RepositoryId,
    /// The manifest that is deleted; `None`: the whole repository.
    only: Option<Digest>,
    next: Next,
    freed: Freed,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    /// The first manifest after this one.
    Manifest(Option<Digest>),
    /// The children of a manifest, after one of them.
    Children(Digest, Option<Digest>),
    Nothing,
}

impl DeletionTrial {
    /// Starts the trial of the deletion of a repository.
    pub fn of_repository(repository: &Repository<'_>) -> Self {
        Self {
            repository: repository.id(),
            only: None,
            next: Next::Manifest(None),
            freed: Freed::default(),
        }
    }

    /// Starts the trial of the deletion of a manifest of a repository, with its tags.
    pub fn of_manifest(repository: &Repository<'_>, manifest: Digest) -> Self {
        Self {
            only: Some(manifest),
            ..Self::of_repository(repository)
        }
    }

    /// Returns what was found so far.
    pub fn freed(&self) -> Freed {
        self.freed
    }

    /// Runs one step on the view in which the repository was looked up. Returns false if there was nothing left.
    pub async fn step(&mut self, view: &View) -> Result<bool> {
        let before = self.clone();
        // Starts anew each time, from where it was.
        *self = view
            .read(|view| {
                let mut trial = before.clone();
                trial.run_step(view)?;
                Ok(trial)
            })
            .await?;
        Ok(!matches!(self.next, Next::Nothing))
    }

    fn run_step(&mut self, view: &View) -> Result<()> {
        let of = Repository::new(view, self.repository);
        self.next = match self.next {
            Next::Nothing => Next::Nothing,
            Next::Manifest(after) => match self.next_manifest(&of, after.as_ref())? {
                None => Next::Nothing,
                Some(manifest) => {
                    self.judge(view, &manifest)?;
                    Next::Children(manifest, None)
                }
            },
            Next::Children(manifest, after) => {
                let children = of.children_after(&manifest, after.as_ref(), STEP_CHILDREN)?;
                for child in &children {
                    if self.counts_at(&of, &manifest, child)? {
                        self.judge(view, child)?;
                    }
                }
                match children.last() {
                    Some(last) => Next::Children(manifest, Some(*last)),
                    None => Next::Manifest(Some(manifest)),
                }
            }
        };
        Ok(())
    }

    fn next_manifest(&self, of: &Repository<'_>, after: Option<&Digest>) -> Result<Option<Digest>> {
        if let Some(only) = self.only {
            let is_left = after.is_none() && of.has_manifest(&only)?;
            return Ok(is_left.then_some(only));
        }
        let next = of.manifests(after, 1)?;
        Ok(next.first().map(|entry| entry.digest))
    }

    /// Returns whether a child is counted at this manifest: at the first of those that list it, unless it is a manifest
    /// of the repository itself.
    fn counts_at(&self, of: &Repository<'_>, manifest: &Digest, child: &Digest) -> Result<bool> {
        if self.only.is_some() {
            return Ok(true);
        }
        if of.has_manifest(child)? {
            return Ok(false);
        }
        for parent in of.parents(child) {
            let parent = parent?;
            if parent == *manifest {
                return Ok(true);
            }
            // Edges of a manifest that was deleted are not counted anywhere.
            if of.has_manifest(&parent)? {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Counts `digest` if it is stored and nothing would reference it.
    fn judge(&mut self, view: &View, digest: &Digest) -> Result<()> {
        let Some(blob) = view.blob(digest)? else {
            return Ok(());
        };
        if self.stays_manifest(view, digest)? || self.stays_child(view, digest)? {
            return Ok(());
        }
        self.freed.blobs += 1;
        self.freed.bytes += blob.length;
        if blob.extent.layout == Layout::Leading {
            self.freed.shared_segment_bytes += blob.length;
        }
        Ok(())
    }

    /// Returns whether `digest` would still be a manifest of a repository.
    fn stays_manifest(&self, view: &View, digest: &Digest) -> Result<bool> {
        for holder in view.manifest_holders(digest) {
            let id = holder?;
            if !self.deletes(id, digest) && view.repository_name(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether a manifest that lists `digest` would stay.
    fn stays_child(&self, view: &View, digest: &Digest) -> Result<bool> {
        let mut after = None;
        while let Some((id, parent)) = view.parent_after(digest, after)? {
            let is_repository_gone =
                id == self.repository && self.only.is_none() || view.repository_name(id)?.is_none();
            if is_repository_gone {
                // All of its manifests at once: there may be very many.
                after = Some((id, None));
                continue;
            }
            if !self.deletes(id, &parent) && Repository::new(view, id).has_manifest(&parent)? {
                return Ok(true);
            }
            after = Some((id, Some(parent)));
        }
        Ok(false)
    }

    /// Returns whether the deletion removes this manifest.
    fn deletes(&self, repository: RepositoryId, manifest: &Digest) -> bool {
        repository == self.repository && self.only.is_none_or(|only| only == *manifest)
    }
}
