//! What one client was promised about the blobs of its own repositories.
//!
//! Owns: [`Ledger`]. Only this client changes these repositories, so it knows every link, reference and deletion in
//! them. Other repositories have the same blobs, and collection removes what nothing references.
//! Refuses: promises that may have ended.
//!
//! A link must be there while something that this client pushed references its blob, and while a promise of it holds:
//! after a 201, a HEAD or a GET, and after the last reference was removed.

use std::collections::HashMap;
use std::time::Instant;

use crate::time::ServerTime;

/// A blob of a repository.
#[derive(Debug)]
struct Link {
    /// When the request was sent whose answer promised it last.
    promised: Instant,
    /// Whether a manifest of this client has referenced it since the link was known to be there.
    is_referenced: bool,
}

/// The links of each repository, and references to their blobs by manifests of all of them.
#[derive(Debug, Default)]
pub struct Ledger {
    links: Vec<HashMap<usize, Link>>,
    references: HashMap<usize, u32>,
}

impl Ledger {
    /// Creates the ledger of so many empty repositories.
    pub fn new(repositories: usize) -> Self {
        Self {
            links: (0..repositories).map(|_| HashMap::new()).collect(),
            references: HashMap::new(),
        }
    }

    /// Records that the answer to a request sent at `sent` promised `blob`.
    pub fn promised(&mut self, repository: usize, blob: usize, sent: Instant) {
        let is_referenced = self.references.contains_key(&blob);
        let link = self.links[repository].entry(blob).or_insert(Link {
            promised: sent,
            is_referenced,
        });
        link.promised = link.promised.max(sent);
        link.is_referenced |= is_referenced;
    }

    /// Records that a manifest with these blobs was pushed, and the answer arrived at `answered`.
    pub fn referenced(
        &mut self,
        repository: usize,
        blobs: &[usize],
        answered: Instant,
        time: &ServerTime,
    ) {
        for blob in blobs {
            *self.references.entry(*blob).or_default() += 1;
            for (number, links) in self.links.iter_mut().enumerate() {
                if let Some(link) = links.get_mut(blob) {
                    link.is_referenced |=
                        number == repository || time.is_held(link.promised, answered);
                }
            }
        }
    }

    /// Records that a manifest with these blobs was deleted by a request sent at `sent`.
    pub fn dereferenced(&mut self, blobs: &[usize], sent: Instant) {
        for blob in blobs {
            let left = self.references.get_mut(blob).expect("it was referenced");
            *left -= 1;
            if *left > 0 {
                continue;
            }
            self.references.remove(blob);
            for links in &mut self.links {
                if let Some(link) = links.get_mut(blob).filter(|link| link.is_referenced) {
                    link.is_referenced = false;
                    link.promised = link.promised.max(sent);
                }
            }
        }
    }

    /// Records that a blob was deleted, or was not found after its promise had ended.
    pub fn forget(&mut self, repository: usize, blob: usize) {
        self.links[repository].remove(&blob);
    }

    /// Records that a repository was deleted.
    pub fn forget_all(&mut self, repository: usize) {
        self.links[repository].clear();
    }

    /// Returns whether a request whose answer arrived at `answered` must have found `blob`.
    pub fn must_have(
        &self,
        repository: usize,
        blob: usize,
        answered: Instant,
        time: &ServerTime,
    ) -> bool {
        self.links[repository]
            .get(&blob)
            .is_some_and(|link| link.is_referenced || time.is_held(link.promised, answered))
    }

    /// Returns whether only a promise protects `blob`, as far as this client knows.
    pub fn is_promised(
        &self,
        repository: usize,
        blob: usize,
        answered: Instant,
        time: &ServerTime,
    ) -> bool {
        self.unreferenced_link(repository, blob)
            .is_some_and(|link| time.is_held(link.promised, answered))
    }

    /// Returns whether that promise holds only because time in which the server was stopped does not count.
    pub fn is_held_by_stop(
        &self,
        repository: usize,
        blob: usize,
        answered: Instant,
        time: &ServerTime,
    ) -> bool {
        self.unreferenced_link(repository, blob)
            .is_some_and(|link| time.is_held_by_stop(link.promised, answered))
    }

    fn unreferenced_link(&self, repository: usize, blob: usize) -> Option<&Link> {
        let link = self.links[repository].get(&blob);
        link.filter(|link| !link.is_referenced)
    }

    /// Returns whether the repository may have `blob`.
    pub fn has_link(&self, repository: usize, blob: usize) -> bool {
        self.links[repository].contains_key(&blob)
    }

    /// Returns a blob that the repository may have and that no manifest of this client references.
    pub fn unreferenced(&self, repository: usize, choice: u64) -> Option<usize> {
        let mut free: Vec<_> = self.links[repository]
            .keys()
            .filter(|blob| !self.references.contains_key(blob))
            .copied()
            .collect();
        free.sort_unstable();
        let count = u64::try_from(free.len()).expect("few");
        (count > 0).then(|| free[usize::try_from(choice % count).expect("an index")])
    }
}
