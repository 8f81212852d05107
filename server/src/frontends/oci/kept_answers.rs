//! Answers that are kept in memory.
//!
//! Owns: [`KeptAnswers`]: answers to GET with small bodies and to HEAD, from the second one on, as long as the catalog
//! does not change.
//! Refuses: permission, damage and the conditions of a request, which are decided for each; memory of what is being
//! sent, for which the account of the connection is charged.
//!
//! Invariant: an answer is kept for the revision from before its content was looked up, and returned only while the
//! catalog has that revision.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use parking_lot::RwLock;
use tonnage_engine::Digest;

use crate::frontends::body::Body;
use crate::registry::ports::Revision;
use crate::telemetry::Pulled;

/// Bytes of one of the two generations.
const GENERATION_BYTES_MAX: usize = 8 << 20;
/// Length of the longest body that is kept.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Estimate of the memory of an answer without path and body.
const ANSWER_BYTES: usize = 1536;
/// The number of requests that are remembered, to find which ones are repeated.
const REQUESTS: usize = 4096;

/// The kept answers of a registry, by path.
#[derive(Debug)]
pub(crate) struct KeptAnswers {
    generations: RwLock<Generations>,
    /// Hashes of paths and revisions, each in the place that it determines. A later one replaces an earlier one.
    requests: Vec<AtomicU64>,
    hasher: RandomState,
}

/// Answers of one revision, in two generations. Once the newer one is full, the older one is dropped, and the newer one
/// becomes the older one.
#[derive(Debug, Default)]
struct Generations {
    revision: Option<Revision>,
    newer: HashMap<String, Arc<KeptAnswer>>,
    older: HashMap<String, Arc<KeptAnswer>>,
    newer_bytes: usize,
}

/// An answer with the status 200. It has a body if it was one to a GET.
#[derive(Debug)]
pub(super) struct KeptAnswer {
    /// The digest of its content.
    pub(super) digest: Digest,
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// Its body, and what that is.
    pub(super) body: Option<(Bytes, Pulled)>,
}

/// What had to make room for an answer, and is dropped without the lock.
#[derive(Debug, Default)]
struct Displaced {
    generation: HashMap<String, Arc<KeptAnswer>>,
    replaced: Option<Arc<KeptAnswer>>,
}

impl KeptAnswers {
    pub(crate) fn new() -> Self {
        Self {
            generations: RwLock::default(),
            requests: (0..REQUESTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Returns the answer to a GET or HEAD of `path` in the state of `revision`.
    pub(super) fn find(
        &self,
        revision: Revision,
        path: &str,
        is_head: bool,
    ) -> Option<Arc<KeptAnswer>> {
        let generations = self.generations.read();
        if generations.revision != Some(revision) {
            return None;
        }
        let is_enough = |answer: &&Arc<KeptAnswer>| is_head || answer.body.is_some();
        if let Some(newer) = generations.newer.get(path) {
            return Some(newer).filter(is_enough).cloned();
        }
        let older = generations.older.get(path).filter(is_enough).cloned()?;
        drop(generations);
        self.insert(revision, path, &older);
        Some(older)
    }

    /// Keeps the answer to a GET or HEAD of `path` if it is small and that request is repeated. `revision` is one from
    /// before its content was looked up.
    pub(super) fn offer(
        &self,
        revision: Revision,
        path: &str,
        is_head: bool,
        digest: Digest,
        answer: &Response<Body>,
    ) {
        let body = answer.body().whole_transfer();
        let body = body.filter(|(bytes, _)| (1..=BODY_BYTES_MAX).contains(&bytes.len()));
        if answer.status() != StatusCode::OK || body.is_some() == is_head {
            return;
        }
        if self.is_repeated(revision, path) {
            let answer = KeptAnswer {
                digest,
                headers: answer.headers().clone(),
                // Copied, because the bytes belong to the memory for reads.
                body: body.map(|(bytes, kind)| (Bytes::copy_from_slice(bytes), kind)),
            };
            self.insert(revision, path, &Arc::new(answer));
        }
    }

    /// Returns whether the path was requested before in this revision, as far as that is remembered.
    fn is_repeated(&self, revision: Revision, path: &str) -> bool {
        let hash = self.hasher.hash_one((revision, path));
        let place = usize::try_from(hash % REQUESTS as u64).ok();
        let place = place.and_then(|place| self.requests.get(place));
        place.is_some_and(|place| place.swap(hash, Ordering::Relaxed) == hash)
    }

    fn insert(&self, revision: Revision, path: &str, answer: &Arc<KeptAnswer>) {
        let mut generations = self.generations.write();
        let older_revision = generations.advance(revision);
        let displaced = generations.insert(revision, path, answer);
        drop(generations);
        // Without the lock, because these may be many.
        drop((older_revision, displaced));
    }
}

impl Generations {
    /// Begins a newer revision. Returns the answers of the older one.
    fn advance(&mut self, revision: Revision) -> Option<Self> {
        let begun = Self {
            revision: Some(revision),
            ..Self::default()
        };
        (self.revision < begun.revision).then(|| mem::replace(self, begun))
    }

    /// Adds an answer, unless it is of another revision.
    fn insert(&mut self, revision: Revision, path: &str, answer: &Arc<KeptAnswer>) -> Displaced {
        let mut displaced = Displaced::default();
        if self.revision != Some(revision) {
            return displaced;
        }
        let bytes = |answer: &KeptAnswer| answer.bytes() + 2 * path.len();
        if self.newer_bytes + bytes(answer) > GENERATION_BYTES_MAX {
            let newer = mem::take(&mut self.newer);
            self.newer_bytes = 0;
            displaced.generation = mem::replace(&mut self.older, newer);
        }
        self.newer_bytes += bytes(answer);
        displaced.replaced = self.newer.insert(path.to_owned(), Arc::clone(answer));
        self.newer_bytes -= displaced.replaced.as_deref().map_or(0, bytes);
        displaced
    }
}

impl KeptAnswer {
    fn bytes(&self) -> usize {
        ANSWER_BYTES + self.body.as_ref().map_or(0, |(bytes, _)| bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use tonnage_engine::vocabulary::Algorithm;

    use super::*;

    fn insert(kept: &KeptAnswers, revision: u64, path: &str, bytes: usize) {
        let answer = KeptAnswer {
            digest: Digest::of(Algorithm::Sha256, b""),
            headers: HeaderMap::new(),
            body: Some((Bytes::from(vec![1; bytes]), Pulled::Manifest)),
        };
        kept.insert(Revision(revision), path, &Arc::new(answer));
    }

    fn find(kept: &KeptAnswers, revision: u64, path: &str) -> Option<usize> {
        let found = kept.find(Revision(revision), path, false)?;
        found.body.as_ref().map(|(bytes, _)| bytes.len())
    }

    /// Guards: an answer is found only in the revision that it is kept for. One of an older revision, looked up before
    /// a commit and kept after it, replaces nothing. A request is repeated only within a revision.
    #[test]
    fn answers_are_of_one_revision() {
        let kept = KeptAnswers::new();
        insert(&kept, 5, "/a", 10);
        assert_eq!(find(&kept, 5, "/a"), Some(10));
        assert_eq!(find(&kept, 4, "/a").or(find(&kept, 6, "/a")), None);
        insert(&kept, 6, "/a", 20);
        insert(&kept, 5, "/a", 10);
        assert_eq!(find(&kept, 6, "/a"), Some(20));
        assert_eq!(find(&kept, 5, "/a"), None);
        let repeated = [5, 5, 6, 6].map(|revision| kept.is_repeated(Revision(revision), "/a"));
        assert_eq!(repeated, [false, true, false, true]);
    }

    /// Guards: kept answers take a bounded amount of memory, what was found lately stays, and a newer revision drops
    /// all.
    #[test]
    fn memory_is_bounded() {
        let kept = KeptAnswers::new();
        let bytes = || {
            let generations = kept.generations.read();
            let all = generations.newer.values().chain(generations.older.values());
            all.map(|answer| answer.bytes()).sum::<usize>()
        };
        insert(&kept, 1, "/often", 100);
        let mut most = 0;
        for turn in 0..1000 {
            insert(&kept, 1, &format!("/{turn}"), BODY_BYTES_MAX);
            assert!(find(&kept, 1, "/often").is_some(), "{turn}");
            most = most.max(bytes());
        }
        let full = GENERATION_BYTES_MAX + GENERATION_BYTES_MAX / 2..=2 * GENERATION_BYTES_MAX;
        assert!(full.contains(&most), "{most}");
        assert_eq!(find(&kept, 1, "/0"), None, "it was not found lately");
        insert(&kept, 2, "/last", 10);
        assert_eq!(bytes(), ANSWER_BYTES + 10);
    }
}
