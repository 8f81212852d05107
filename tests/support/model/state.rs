//! The reference model: the state of a store after a sequence of transactions, small enough to be checked by reading.
//!
//! Owns: [`Model`]. Refuses: bytes, disks, time and failures.
//!
//! The engine gives every transaction a number (LSN). It promises a state as if they happened one after the other in
//! that order, and that a stop keeps a prefix of them with everything that was answered. So a model is a value, a
//! transaction is a function from one to the next, and "what is durable" is a number. [`super::timeline`] checks that
//! what a stop left is this model after exactly the transactions up to the recovered LSN.

use std::collections::{BTreeMap, BTreeSet};

use tonnage_engine::Digest;

use super::content;
use super::generate::removes_untagged;
use super::operation::{Call, Operation, many_tag};

/// The state of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Model {
    /// Repositories by name.
    pub repositories: BTreeMap<String, Repository>,
    /// Blobs whose bytes are stored, whoever may read them.
    pub stored: BTreeSet<Digest>,
}

/// The state of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Repository {
    /// Visible blobs.
    pub links: BTreeSet<Digest>,
    /// Manifests.
    pub manifests: BTreeMap<Digest, Manifest>,
    /// Tags, and the manifests to which they point.
    pub tags: BTreeMap<String, Digest>,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Manifest {
    /// Its bytes.
    pub size: u64,
    /// Its children, which it keeps alive.
    pub children: BTreeSet<Digest>,
    /// Its subject.
    pub subject: Option<Digest>,
}

/// The model does not allow the call now, so the engine must have rejected it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

impl Model {
    /// Applies a call that is one transaction. The model is unchanged if the call is rejected.
    pub fn apply(&mut self, call: &Call) -> Result<(), Refused> {
        let mut next = self.clone();
        next.change(call)?;
        *self = next;
        Ok(())
    }

    fn change(&mut self, call: &Call) -> Result<(), Refused> {
        let name = &call.repository;
        match &call.operation {
            Operation::Push { content, .. } => self.link(name, content::digest(*content)),
            Operation::Mount { content, from } => {
                let digest = content::digest(*content);
                let there = self
                    .repositories
                    .get(from)
                    .is_some_and(|from| from.links.contains(&digest));
                require(there, || format!("content {content} is not in {from}"))?;
                self.link(name, digest);
            }
            Operation::Manifest {
                number,
                children,
                manifests,
                subject,
                tag,
            } => {
                let repository = self.repositories.entry(name.clone()).or_default();
                for child in children {
                    let linked = repository.links.contains(&content::digest(*child));
                    require(linked, || format!("child {child} is not linked"))?;
                }
                let manifest = Manifest {
                    size: content::manifest(*number).len() as u64,
                    children: children
                        .iter()
                        .map(|child| content::digest(*child))
                        .chain(manifests.iter().map(|one| content::manifest_digest(*one)))
                        .collect(),
                    subject: subject.map(content::manifest_digest),
                };
                let digest = content::manifest_digest(*number);
                repository.manifests.insert(digest, manifest);
                if let Some(tag) = tag {
                    repository.tags.insert(tag.clone(), digest);
                }
                self.stored.insert(digest);
            }
            Operation::Tag { tag, number, old } => {
                let repository = self.existing(name)?;
                let digest = content::manifest_digest(*number);
                if let Some(old) = old {
                    let now = repository.tags.get(tag).copied();
                    let wanted = old.map(content::manifest_digest);
                    require(now == wanted, || format!("{tag} points at {now:?}"))?;
                }
                let there = repository.manifests.contains_key(&digest);
                require(there, || format!("manifest {number} is not there"))?;
                repository.tags.insert(tag.clone(), digest);
            }
            Operation::TagMany { count, number } => {
                let repository = self.existing(name)?;
                let digest = content::manifest_digest(*number);
                let there = repository.manifests.contains_key(&digest);
                require(there, || format!("manifest {number} is not there"))?;
                let tags = (0..*count).map(|tag| (many_tag(tag), digest));
                repository.tags.extend(tags);
            }
            Operation::Untag(tag) => {
                let gone = self.existing(name)?.tags.remove(tag);
                require(gone.is_some(), || format!("{tag} does not exist"))?;
            }
            Operation::DeleteManifest(number) => {
                let repository = self.existing(name)?;
                let digest = content::manifest_digest(*number);
                let gone = repository.manifests.remove(&digest);
                require(gone.is_some(), || format!("manifest {number} is not there"))?;
                repository.tags.retain(|_, target| *target != digest);
            }
            Operation::DeleteRepository => {
                let gone = self.repositories.remove(name);
                require(gone.is_some(), || {
                    format!("repository {name} does not exist")
                })?;
            }
            Operation::Unlink(content) => {
                let gone = self
                    .existing(name)?
                    .links
                    .remove(&content::digest(*content));
                require(gone, || format!("content {content} is not linked"))?;
            }
            Operation::Collect(removed) => {
                for digest in removed {
                    self.collect(digest)?;
                }
            }
            Operation::CollectManifests(removed) => self.collect_manifests(removed)?,
            Operation::Leave { .. }
            | Operation::Resume
            | Operation::Cancel
            | Operation::Head(_)
            | Operation::Read(..)
            | Operation::Checkpoint
            | Operation::Scrub(_)
            | Operation::Wait(_) => {
                return Err(Refused("the call is no transaction".to_owned()));
            }
        }
        Ok(())
    }

    fn link(&mut self, name: &str, digest: Digest) {
        let repository = self.repositories.entry(name.to_owned()).or_default();
        repository.links.insert(digest);
        self.stored.insert(digest);
    }

    /// Removes a digest that nothing references, with its links.
    fn collect(&mut self, digest: &Digest) -> Result<(), Refused> {
        let references = |repository: &Repository| {
            let mut lists = repository.manifests.values();
            repository.manifests.contains_key(digest)
                || lists.any(|manifest| manifest.children.contains(digest))
        };
        let referenced = self.repositories.values().any(references);
        require(!referenced, || format!("{digest} is referenced"))?;
        let stored = self.stored.remove(digest);
        require(stored, || format!("{digest} is not stored"))?;
        for repository in self.repositories.values_mut() {
            repository.links.remove(digest);
        }
        Ok(())
    }

    /// Removes manifests that nothing else keeps: no tag, no manifest that lists them, and no subject. Where untagged
    /// manifests are kept, only those go whose subject is absent.
    fn collect_manifests(&mut self, removed: &[(String, Digest)]) -> Result<(), Refused> {
        let mut gone = Vec::new();
        for (name, digest) in removed {
            let manifest = self.existing(name)?.manifests.remove(digest);
            require(manifest.is_some(), || format!("{digest} is not in {name}"))?;
            gone.extend(manifest.map(|manifest| (name, digest, manifest)));
        }
        for (name, digest, manifest) in gone {
            let repository = self.existing(name)?;
            let tagged = repository.tags.values().any(|target| target == digest);
            require(!tagged, || format!("{digest} is tagged in {name}"))?;
            let mut others = repository.manifests.values();
            let listed = others.any(|other| other.children.contains(digest));
            require(!listed, || format!("{digest} is listed in {name}"))?;
            let subject = manifest.subject;
            let refers = subject.is_some_and(|subject| repository.manifests.contains_key(&subject));
            require(!refers, || format!("{digest} has its subject in {name}"))?;
            let goes = subject.is_some() || removes_untagged(name);
            require(goes, || format!("{name} keeps untagged manifests"))?;
        }
        Ok(())
    }

    /// Returns whether no repository but `name` has a digest, as a link or a manifest.
    pub fn is_unique(&self, name: &str, digest: &Digest) -> bool {
        let mut others = self.repositories.iter().filter(|(other, _)| *other != name);
        !others.any(|(_, repository)| repository.digests().contains(digest))
    }

    fn existing(&mut self, name: &str) -> Result<&mut Repository, Refused> {
        self.repositories
            .get_mut(name)
            .ok_or_else(|| Refused(format!("repository {name} does not exist")))
    }
}

impl Repository {
    /// Returns its links and manifests.
    pub fn digests(&self) -> BTreeSet<Digest> {
        let manifests = self.manifests.keys();
        self.links.iter().chain(manifests).copied().collect()
    }

    /// Returns the manifests that refer to `subject`.
    pub fn referrers(&self, subject: &Digest) -> BTreeSet<Digest> {
        let refers = |manifest: &Manifest| manifest.subject.as_ref() == Some(subject);
        let found = self
            .manifests
            .iter()
            .filter(|(_, manifest)| refers(manifest));
        found.map(|(digest, _)| *digest).collect()
    }
}

fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(Refused(why())) }
}
