//! Resolves a batch into operations. Pure: from a state to operations.
//!
//! Owns: preconditions, stated and implied. Refuses: applying anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{Repository, View, retired};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::finished_blob::FinishedBlob;
use crate::format::transaction::{Operation, RepositoryId};
use crate::limits;
use crate::vocabulary::{Batch, Change, ManifestEntry, Require};

/// Returns the operations of `batch` on top of `view`.
///
/// Besides what the batch requires, it must not link, tag or enter what the store does not have. `next_repository`
/// becomes the id of a repository that the batch creates. `damaged` says whether a blob is known to be corrupt where it
/// is stored; a new copy then replaces it.
///
/// # Errors
/// [`Error::Unmet`] with everything that does not hold.
pub(crate) fn resolve(
    batch: &Batch<FinishedBlob>,
    view: &View,
    next_repository: u64,
    damaged: &dyn Fn(&Digest, &Extent) -> bool,
) -> Result<Vec<Operation>> {
    let mut unmet = Vec::new();
    let known = view.repository(&batch.repository)?;
    for require in &batch.requires {
        if !view.holds(known, require)? {
            unmet.push(require.clone());
        }
    }
    let mut operations = Vec::new();
    let repository = match known {
        Some(repository) => repository.id(),
        None if batch.create_repository => {
            check_length(
                "repository name",
                batch.repository.len(),
                limits::REPOSITORY_NAME_BYTES_MAX,
            )?;
            let id = RepositoryId(next_repository);
            operations.push(Operation::CreateRepository {
                id,
                name: batch.repository.clone(),
            });
            id
        }
        None => {
            unmet.push(Require::Repository);
            return Err(Error::Unmet(unmet));
        }
    };
    let mut resolver = Resolver {
        view,
        here: Repository::new(view, repository),
        name: &batch.repository,
        repository,
        damaged,
        operations,
        unmet,
        placed: BTreeSet::new(),
        entered: BTreeSet::new(),
        tags: BTreeMap::new(),
        retired: BTreeSet::new(),
        deleted: false,
    };
    for blob in &batch.staged {
        resolver.place(blob)?;
    }
    for change in &batch.changes {
        resolver.change(change)?;
    }
    if resolver.unmet.is_empty() {
        Ok(resolver.operations)
    } else {
        Err(Error::Unmet(resolver.unmet))
    }
}

fn check_length(what: &'static str, length: usize, max: usize) -> Result<()> {
    if length <= max {
        return Ok(());
    }
    Err(Error::TooLarge {
        what,
        length: length as u64,
        max: max as u64,
    })
}

/// Resolves changes one by one and remembers what earlier changes of the batch did.
struct Resolver<'a> {
    view: &'a View,
    here: Repository<'a>,
    name: &'a str,
    repository: RepositoryId,
    damaged: &'a dyn Fn(&Digest, &Extent) -> bool,
    operations: Vec<Operation>,
    unmet: Vec<Require>,
    placed: BTreeSet<Digest>,
    entered: BTreeSet<Digest>,
    tags: BTreeMap<String, Option<Digest>>,
    /// Manifests that this batch retired: tags that the view has for them no longer count.
    retired: BTreeSet<Digest>,
    /// Whether an earlier change of the batch deleted the repository.
    deleted: bool,
}

impl Resolver<'_> {
    /// Places finished bytes as a blob, unless it is stored intact.
    fn place(&mut self, blob: &FinishedBlob) -> Result<()> {
        let (digest, extent) = (blob.digest(), blob.extent());
        let stored = self.view.blob(&digest)?.map(|stored| stored.extent);
        // The damaged copy itself heals nothing.
        let wanted = stored.is_none_or(|at| at != extent && (self.damaged)(&digest, &at));
        if self.placed.insert(digest) && wanted {
            self.operations
                .push(Operation::PlaceBlob { digest, extent });
        }
        Ok(())
    }

    fn change(&mut self, change: &Change) -> Result<()> {
        let repository = self.repository;
        if self.deleted {
            self.unmet.push(Require::Repository);
            return Ok(());
        }
        match change {
            Change::Link(digest) => {
                self.need_stored(digest)?;
                self.operations.push(Operation::Link {
                    repository,
                    digest: *digest,
                });
            }
            Change::Unlink(digest) => {
                self.need(Require::Linked(*digest))?;
                self.operations.push(Operation::Unlink {
                    repository,
                    digest: *digest,
                });
            }
            Change::PutManifest(entry) => self.put_manifest(entry)?,
            Change::DeleteManifest(digest) => self.delete_manifest(digest)?,
            Change::SetTag { tag, digest } => self.set_tag(tag, digest)?,
            Change::DeleteTag(tag) => match self.tag(tag)? {
                None => self.unmet.push(Require::TagExists(tag.clone())),
                Some(old) => {
                    self.tags.insert(tag.clone(), None);
                    self.operations.push(Operation::DeleteTag {
                        repository,
                        tag: tag.clone(),
                        old,
                    });
                }
            },
            Change::DeleteRepository => {
                self.deleted = true;
                self.operations.push(Operation::DeleteRepository {
                    id: repository,
                    name: self.name.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn need(&mut self, require: Require) -> Result<()> {
        if !self.view.holds(Some(self.here), &require)? {
            self.unmet.push(require);
        }
        Ok(())
    }

    fn need_stored(&mut self, digest: &Digest) -> Result<()> {
        if !self.placed.contains(digest) {
            self.need(Require::Stored(*digest))?;
        }
        Ok(())
    }

    /// Returns the manifest that a tag points at, earlier changes of this batch included.
    fn tag(&self, tag: &str) -> Result<Option<Digest>> {
        if let Some(known) = self.tags.get(tag) {
            return Ok(*known);
        }
        let found = self.here.tag(tag)?.map(|found| found.digest);
        Ok(found.filter(|digest| !self.retired.contains(digest)))
    }

    /// Returns the manifest that a tag's row points at, even if the tag no longer counts: that row is replaced.
    fn tag_row(&self, tag: &str) -> Result<Option<Digest>> {
        if let Some(known) = self.tags.get(tag) {
            return Ok(*known);
        }
        let row = self.here.tag_row(tag)?;
        Ok(row.map(|row| row.digest))
    }

    fn put_manifest(&mut self, entry: &ManifestEntry) -> Result<()> {
        check_length(
            "manifest attributes",
            entry.attributes.len(),
            limits::MANIFEST_ATTRIBUTES_BYTES_MAX,
        )?;
        check_length(
            "manifest's child list",
            entry.children.len(),
            limits::MANIFEST_CHILDREN_MAX,
        )?;
        self.need_stored(&entry.digest)?;
        self.entered.insert(entry.digest);
        if self.is_entered_already(entry)? {
            let (repository, digest) = (self.repository, entry.digest);
            let subject = entry.subject.as_ref();
            let outlives_subject =
                subject.map_or(Ok(false), |subject| self.here.has_mark(subject))?;
            if outlives_subject || self.view.manifest_suspect(repository, &digest)?.is_some() {
                // The answer promises it anew.
                self.operations
                    .push(Operation::SuspectManifest { repository, digest });
            }
            return Ok(());
        }
        self.operations.push(Operation::PutManifest {
            repository: self.repository,
            entry: entry.clone(),
        });
        Ok(())
    }

    /// Returns whether the repository has exactly this entry, edges included. Pushed again, it costs neither rows nor
    /// journal.
    fn is_entered_already(&self, entry: &ManifestEntry) -> Result<bool> {
        let deleted = |operation: &Operation| matches!(operation, Operation::DeleteManifest { digest, .. } if *digest == entry.digest);
        let Some(known) = self.here.manifest(&entry.digest)? else {
            return Ok(false);
        };
        let same = (known.size, known.subject, &known.attributes)
            == (entry.size, entry.subject, &entry.attributes);
        let retired = self.retired.contains(&entry.digest);
        if !same || retired || self.operations.iter().any(deleted) {
            return Ok(false);
        }
        let known = self.here.children(&entry.digest, usize::MAX)?;
        let known: BTreeSet<Digest> = known.into_iter().collect();
        Ok(known
            .iter()
            .eq(&entry.children.iter().copied().collect::<BTreeSet<_>>()))
    }

    /// Removes a manifest and its tags. Where there are very many rows, it only marks the manifest as retired.
    fn delete_manifest(&mut self, digest: &Digest) -> Result<()> {
        self.need(Require::Manifest(*digest))?;
        let (repository, digest) = (self.repository, *digest);
        let here = self.tags.iter().filter(|(_, at)| **at == Some(digest));
        let mut tags: Vec<String> = here.map(|(tag, _)| tag.clone()).collect();
        let rows = self.here.tags_of(&digest, retired::TAGS_AT_ONCE + 1)?;
        let edges_max = retired::EDGES_AT_ONCE;
        let large = rows.len() > retired::TAGS_AT_ONCE
            || retired::count_edges(self.here, &digest, edges_max)?.is_none();
        if !large {
            tags.extend(rows.into_iter().filter(|tag| !self.tags.contains_key(tag)));
        }
        for tag in tags {
            self.tags.insert(tag.clone(), None);
            self.operations.push(Operation::DeleteTag {
                repository,
                tag,
                old: digest,
            });
        }
        self.operations.push(if large {
            self.retired.insert(digest);
            Operation::RetireManifest { repository, digest }
        } else {
            Operation::DeleteManifest { repository, digest }
        });
        Ok(())
    }

    fn set_tag(&mut self, tag: &str, digest: &Digest) -> Result<()> {
        check_length("tag", tag.len(), limits::TAG_BYTES_MAX)?;
        if !self.entered.contains(digest) {
            self.need(Require::Manifest(*digest))?;
        }
        let old = self.tag_row(tag)?;
        self.tags.insert(tag.to_owned(), Some(*digest));
        let (repository, tag, digest) = (self.repository, tag.to_owned(), *digest);
        self.operations.push(Operation::SetTag {
            repository,
            tag,
            digest,
            old,
        });
        Ok(())
    }
}
