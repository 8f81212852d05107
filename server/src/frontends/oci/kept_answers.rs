//! Answers that are kept in memory.
//!
//! Owns: [`KeptAnswers`]: answers to GET and HEAD with small bodies or none, from the second one on, as long as the
//! catalog does not change.
//! Refuses: permission, damage and the conditions of a request, which are decided for each.
//!
//! Invariants: an answer is kept for the revision from before its content was looked up, and returned only while the
//! catalog has that revision. What is kept, or was kept and is still being sent, is at most [`BYTES_MAX`].

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Response};
use parking_lot::RwLock;
use tonnage_engine::Digest;

use super::reply::CONTENT_HEADERS;
use crate::frontends::body::Body;
use crate::registry::ports::Revision;
use crate::telemetry::{Metrics, Pulled};

/// Bytes of all answers together.
const BYTES_MAX: usize = 16 << 20;
/// Bytes of one generation. The rest is for answers that were dropped and are still being sent.
const GENERATION_BYTES_MAX: usize = 6 << 20;
/// Length of the longest body that is kept.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Estimate of the memory of an answer without path and body.
const ANSWER_BYTES: usize = 1 << 10;
/// Paths that are remembered to have been asked for once.
const ASKED: usize = 4096;

/// The kept answers of a registry, by path.
#[derive(Debug)]
pub(crate) struct KeptAnswers {
    generations: RwLock<Generations>,
    budget: Arc<Budget>,
    /// Hashes of paths, each in the place that it determines. A later one replaces an earlier one.
    asked: Vec<AtomicU64>,
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

/// An answer. It has a body unless that is long or was not asked for.
#[derive(Debug)]
pub(super) struct KeptAnswer {
    digest: Digest,
    headers: HeaderMap,
    body: Option<(Bytes, Pulled)>,
    held: Held,
}

#[derive(Debug, Default)]
struct Budget(AtomicUsize);

/// A part of the budget, until it drops.
#[derive(Debug)]
struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

/// Bytes of a body, which may be sent after the answer was dropped.
struct HeldBody {
    bytes: Box<[u8]>,
    // Held for its drop.
    _held: Held,
}

impl KeptAnswers {
    pub(crate) fn new() -> Self {
        Self {
            generations: RwLock::default(),
            budget: Arc::default(),
            asked: (0..ASKED).map(|_| AtomicU64::new(0)).collect(),
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
        self.put(revision, path, &older);
        Some(older)
    }

    /// Keeps an answer to a GET or HEAD of `path` if it was asked for before and there is room. `revision` is one from
    /// before its content was looked up.
    pub(super) fn keep(
        &self,
        revision: Revision,
        path: &str,
        digest: Digest,
        answer: &Response<Body>,
    ) {
        if self.was_asked_for(path) {
            let body = answer.body().whole_transfer();
            self.insert(revision, path, digest, answer.headers(), body);
        }
    }

    fn insert(
        &self,
        revision: Revision,
        path: &str,
        digest: Digest,
        headers: &HeaderMap,
        body: Option<(&Bytes, Pulled)>,
    ) {
        self.advance(revision);
        let Some(held) = self.budget.take(ANSWER_BYTES + path.len()) else {
            return;
        };
        let body = body.filter(|(bytes, _)| bytes.len() <= BODY_BYTES_MAX);
        let body = body.and_then(|(bytes, kind)| {
            let held = self.budget.take(bytes.len())?;
            let bytes = Box::from(bytes.as_ref());
            let body = HeldBody { bytes, _held: held };
            Some((Bytes::from_owner(body), kind))
        });
        let answer = KeptAnswer {
            digest,
            headers: headers.clone(),
            body,
            held,
        };
        self.put(revision, path, &Arc::new(answer));
    }

    /// Drops the answers of an older revision.
    fn advance(&self, revision: Revision) {
        if self.generations.read().revision < Some(revision) {
            let mut generations = self.generations.write();
            let dropped = generations.advance(revision);
            drop(generations);
            // Without the lock, because these may be many.
            drop(dropped);
        }
    }

    /// Returns whether the path was asked for before, as far as that is remembered.
    fn was_asked_for(&self, path: &str) -> bool {
        let hash = self.hasher.hash_one(path);
        let place = hash % self.asked.len() as u64;
        let place = usize::try_from(place).ok();
        let place = place.and_then(|place| self.asked.get(place));
        place.is_some_and(|place| place.swap(hash, Ordering::Relaxed) == hash)
    }

    fn put(&self, revision: Revision, path: &str, answer: &Arc<KeptAnswer>) {
        let mut generations = self.generations.write();
        let dropped = generations.put(revision, path, answer);
        drop(generations);
        drop(dropped);
    }
}

impl Generations {
    /// Begins a newer revision. Returns the answers of the older one.
    fn advance(&mut self, revision: Revision) -> Self {
        if self.revision >= Some(revision) {
            return Self::default();
        }
        let begun = Self {
            revision: Some(revision),
            ..Self::default()
        };
        mem::replace(self, begun)
    }

    /// Adds an answer, unless it is of another revision. Returns the answers that had to make room.
    fn put(
        &mut self,
        revision: Revision,
        path: &str,
        answer: &Arc<KeptAnswer>,
    ) -> HashMap<String, Arc<KeptAnswer>> {
        let mut dropped = HashMap::new();
        if self.revision != Some(revision) {
            return dropped;
        }
        if self.newer_bytes + answer.bytes() > GENERATION_BYTES_MAX {
            let newer = mem::take(&mut self.newer);
            self.newer_bytes = 0;
            dropped = mem::replace(&mut self.older, newer);
        }
        self.newer_bytes += answer.bytes();
        let replaced = self.newer.insert(path.to_owned(), Arc::clone(answer));
        self.newer_bytes -= replaced.map_or(0, |replaced| replaced.bytes());
        dropped
    }
}

impl KeptAnswer {
    /// Returns the digest of its content.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the answer to a GET, or to a HEAD.
    pub(super) fn response(&self, is_head: bool, metrics: &Arc<Metrics>) -> Response<Body> {
        let body = match &self.body {
            Some((bytes, kind)) if !is_head => Body::counted(bytes.clone(), metrics, *kind),
            Some(_) | None => Body::empty(),
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.reserve(CONTENT_HEADERS);
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        response
    }

    fn bytes(&self) -> usize {
        let body = self.body.as_ref();
        self.held.bytes + body.map_or(0, |(bytes, _)| bytes.len())
    }
}

impl Budget {
    fn take(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let add = |held: usize| Some(held + bytes).filter(|held| *held <= BYTES_MAX);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        taken.is_ok().then(|| Held {
            budget: Arc::clone(self),
            bytes,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use tonnage_engine::vocabulary::Algorithm;

    use super::*;

    fn put(kept: &KeptAnswers, revision: u64, path: &str, bytes: usize) {
        let (digest, headers) = (Digest::of(Algorithm::Sha256, b""), HeaderMap::new());
        let body = Bytes::from(vec![1; bytes]);
        let body = Some((&body, Pulled::Manifest));
        kept.insert(Revision(revision), path, digest, &headers, body);
    }

    fn find(kept: &KeptAnswers, revision: u64, path: &str) -> Option<Bytes> {
        let found = kept.find(Revision(revision), path, false)?;
        found.body.as_ref().map(|(bytes, _)| bytes.clone())
    }

    /// Guards: an answer is found only in the revision that it is kept for. One of an older revision, looked up before
    /// a commit and kept after it, replaces nothing.
    #[test]
    fn answers_are_of_one_revision() {
        let kept = KeptAnswers::new();
        put(&kept, 5, "/a", 10);
        assert!(find(&kept, 5, "/a").is_some());
        assert!(find(&kept, 4, "/a").is_none() && find(&kept, 6, "/a").is_none());
        put(&kept, 6, "/a", 20);
        put(&kept, 5, "/a", 10);
        assert_eq!(find(&kept, 6, "/a").map(|body| body.len()), Some(20));
        assert!(find(&kept, 5, "/a").is_none());
    }

    /// Guards: kept answers take a bounded amount of memory, with those that are still being sent; what was found
    /// lately stays; nothing is counted any more once all are gone.
    #[test]
    fn memory_is_bounded_and_returned() {
        let kept = KeptAnswers::new();
        let (mut sent, mut most) = (Vec::new(), 0);
        put(&kept, 1, "/often", 100);
        for turn in 0..1000 {
            let path = format!("/{turn}");
            put(&kept, 1, &path, BODY_BYTES_MAX);
            sent.extend(find(&kept, 1, &path).filter(|_| turn % 9 == 0));
            assert!(find(&kept, 1, "/often").is_some(), "{turn}");
            most = most.max(kept.budget.0.load(Ordering::Relaxed));
        }
        assert!(most <= BYTES_MAX && most > GENERATION_BYTES_MAX, "{most}");
        assert!(find(&kept, 1, "/0").is_none(), "it was not found lately");
        put(&kept, 2, "/last", 10);
        assert!(kept.budget.0.load(Ordering::Relaxed) >= sent.len() * BODY_BYTES_MAX);
        drop(sent);
        let left = kept.budget.0.load(Ordering::Relaxed);
        assert_eq!(left, ANSWER_BYTES + "/last".len() + 10);
    }
}
