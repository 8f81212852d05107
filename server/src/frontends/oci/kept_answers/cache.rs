//! The cache of answers.
//!
//! Owns: [`KeptAnswers`]: answers to GET with small bodies and to HEAD, from the second one on, as long as the catalog
//! does not change.
//! Refuses: which answers are kept, and which requests get them (`repeat`).
//!
//! Invariant: an answer is kept for the revision from before its content was looked up, and returned only while the
//! catalog has that revision.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use super::answer::{BodyMemory, KeptAnswer};
use crate::registry::ports::Revision;

/// Bytes of one of the two generations.
const GENERATION_BYTES_MAX: usize = 8 << 20;
/// Bytes of all bodies: those of two generations, and as many that made room and are still being sent.
const BODIES_BYTES_MAX: usize = 4 * GENERATION_BYTES_MAX;
/// Length of the longest body that is kept.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Estimate of the memory of an answer without path and body.
const ANSWER_BYTES: usize = 2304;
/// The number of requests that are remembered, to find which ones are repeated.
const REQUESTS: usize = 4096;

/// The kept answers of a registry, by path.
#[derive(Debug)]
pub(crate) struct KeptAnswers {
    generations: RwLock<Generations>,
    /// Hashes of paths and revisions, each in the place that it determines. A later one replaces an earlier one.
    requests: Vec<AtomicU64>,
    hasher: RandomState,
    bodies: BodyMemory,
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
            bodies: BodyMemory::default(),
        }
    }

    /// Returns the answer to a GET or HEAD of `path` in the state of `revision`.
    pub(in crate::frontends::oci) fn find(
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

    /// Returns a copy of a body; `None` if it is not small, or if there is no room.
    pub(in crate::frontends::oci) fn copy_body(&self, bytes: &[u8]) -> Option<Bytes> {
        let is_small = (1..=BODY_BYTES_MAX).contains(&bytes.len());
        let copy = is_small.then(|| self.bodies.copy(bytes, BODIES_BYTES_MAX));
        copy.flatten()
    }

    /// Returns whether the path was requested before in this revision, as far as that is remembered.
    pub(in crate::frontends::oci) fn is_repeated(&self, revision: Revision, path: &str) -> bool {
        let hash = self.hasher.hash_one((revision, path));
        let place = usize::try_from(hash % REQUESTS as u64).ok();
        let place = place.and_then(|place| self.requests.get(place));
        place.is_some_and(|place| place.swap(hash, Ordering::Relaxed) == hash)
    }

    /// Keeps an answer to requests of `path`. `revision` is one from before its content was looked up.
    pub(in crate::frontends::oci) fn insert(
        &self,
        revision: Revision,
        path: &str,
        answer: &Arc<KeptAnswer>,
    ) {
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
        let kept = self.newer.get(path);
        let has_more = kept.is_some_and(|kept| kept.body.is_some() && answer.body.is_none());
        if self.revision != Some(revision) || has_more {
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
        ANSWER_BYTES + self.body.as_ref().map_or(0, |body| body.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode};
    use tonnage_engine::Digest;
    use tonnage_engine::vocabulary::Algorithm;

    use super::super::answer::KeptBody;
    use super::*;
    use crate::telemetry::{HttpLabels, Metrics, Pulled};

    /// Keeps an answer, to a HEAD if it has no bytes. Returns false if there is no room for its body.
    fn insert(kept: &KeptAnswers, revision: u64, path: &str, bytes: usize) -> bool {
        let body = kept.copy_body(&vec![1; bytes]);
        if body.is_none() && bytes > 0 {
            return false;
        }
        let labels = HttpLabels::new("/", &Method::GET);
        let [gets, heads] =
            [(); 2].map(|()| Metrics::new(Vec::new()).counters(&labels, StatusCode::OK));
        let answer = KeptAnswer {
            repository: "a".parse().expect("a name"),
            incarnation: None,
            digest: Digest::of(Algorithm::Sha256, b""),
            headers: HeaderMap::new(),
            body: body.map(|bytes| KeptBody {
                bytes,
                kind: Pulled::Manifest,
            }),
            route: "/",
            gets,
            heads,
        };
        kept.insert(Revision(revision), path, &Arc::new(answer));
        true
    }

    fn find(kept: &KeptAnswers, revision: u64, path: &str) -> Option<usize> {
        let found = kept.find(Revision(revision), path, false)?;
        found.body.as_ref().map(|body| body.bytes.len())
    }

    /// Guards: an answer is found only in the revision that it is kept for. One of an older revision, looked up before
    /// a commit and kept after it, replaces nothing. A request is repeated only within a revision.
    #[test]
    fn answers_are_of_one_revision() {
        let kept = KeptAnswers::new();
        insert(&kept, 5, "/a", 10);
        assert_eq!(find(&kept, 5, "/a"), Some(10));
        assert_eq!(find(&kept, 4, "/a").or(find(&kept, 6, "/a")), None);
        insert(&kept, 5, "/a", 0);
        assert_eq!(find(&kept, 5, "/a"), Some(10), "a HEAD displaces no body");
        insert(&kept, 6, "/a", 20);
        insert(&kept, 5, "/a", 10);
        assert_eq!(find(&kept, 6, "/a"), Some(20));
        assert_eq!(find(&kept, 5, "/a"), None);
        let repeated = [5, 5, 6, 6].map(|revision| kept.is_repeated(Revision(revision), "/a"));
        assert_eq!(repeated, [false, true, false, true]);
    }

    /// Guards: kept answers take a bounded amount of memory, what was found lately stays, and a newer revision drops
    /// all. Bodies that are being sent count too.
    #[test]
    fn memory_is_bounded() {
        let kept = KeptAnswers::new();
        let bytes = || {
            let generations = kept.generations.read();
            let all = generations.newer.values().chain(generations.older.values());
            all.map(|answer| answer.bytes()).sum::<usize>()
        };
        insert(&kept, 1, "/often", 100);
        let (mut most, mut sent) = (0, Vec::new());
        for turn in 0.. {
            let path = format!("/{turn}");
            if !insert(&kept, 1, &path, BODY_BYTES_MAX) {
                break;
            }
            let found = kept.find(Revision(1), &path, false).expect("it is new");
            sent.extend(found.body.as_ref().map(|body| body.bytes.clone()));
            assert!(find(&kept, 1, "/often").is_some(), "{turn}");
            most = most.max(bytes());
        }
        let full = GENERATION_BYTES_MAX + GENERATION_BYTES_MAX / 2..=2 * GENERATION_BYTES_MAX;
        assert!(full.contains(&most), "{most}");
        assert_eq!(sent.len(), BODIES_BYTES_MAX / BODY_BYTES_MAX - 1);
        assert_eq!(find(&kept, 1, "/0"), None, "it was not found lately");
        drop(sent);
        assert!(insert(&kept, 2, "/last", 10));
        assert_eq!(bytes(), ANSWER_BYTES + 10);
        assert_eq!(kept.bodies.bytes(), 10);
    }
}
