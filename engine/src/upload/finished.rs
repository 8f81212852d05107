//! Uploads that became a blob a short time ago, for a client whose 201 was lost and that asks again.
//!
//! Owns: [`Finished`]: which digest an upload became. Refuses: whether the repository still has it.
//!
//! Invariants: age and number are bounded. At the bound, the repository with the most entries loses its oldest, so that
//! pushes to one repository do not remove the entries of another.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::vocabulary::UploadId;

/// Most entries, about 200 bytes each.
const ENTRIES_MAX: usize = 32 << 10;
/// How long an entry is kept.
const KEPT_FOR: Duration = Duration::from_mins(15);

/// The finished uploads.
#[derive(Debug, Default)]
pub(super) struct Finished {
    entries: HashMap<UploadId, Entry>,
    /// The entries of each repository, oldest first.
    by_repository: HashMap<Arc<str>, VecDeque<UploadId>>,
    /// Repositories by their number of entries.
    by_count: BTreeSet<(usize, Arc<str>)>,
}

#[derive(Debug)]
struct Entry {
    repository: Arc<str>,
    digest: Digest,
    at: Duration,
}

impl Finished {
    /// Remembers that `upload` of `repository` became `digest`.
    pub(super) fn add(
        &mut self,
        upload: UploadId,
        repository: &str,
        digest: Digest,
        now: Duration,
    ) {
        if self.entries.len() >= ENTRIES_MAX
            && let Some((_, most)) = self.by_count.last()
        {
            let most = Arc::clone(most);
            self.drop_oldest(&most);
        }
        let known = self.by_repository.get_key_value(repository);
        let name = known.map_or_else(|| Arc::from(repository), |(name, _)| Arc::clone(name));
        let entry = Entry {
            repository: Arc::clone(&name),
            digest,
            at: now,
        };
        if self.entries.insert(upload, entry).is_none() {
            self.change(&name, |uploads| uploads.push_back(upload));
        }
    }

    /// Returns the digest that `upload` of `repository` became.
    pub(super) fn get(&self, upload: UploadId, repository: &str, now: Duration) -> Option<Digest> {
        let entry = self.entries.get(&upload)?;
        let known = &*entry.repository == repository && now.saturating_sub(entry.at) < KEPT_FOR;
        known.then_some(entry.digest)
    }

    /// Removes entries that are too old.
    pub(super) fn expire(&mut self, now: Duration) {
        let all: Vec<_> = self.by_repository.keys().map(Arc::clone).collect();
        for repository in all {
            while self.is_oldest_over(&repository, now) {
                self.drop_oldest(&repository);
            }
        }
    }

    fn is_oldest_over(&self, repository: &str, now: Duration) -> bool {
        let oldest = self.by_repository.get(repository).and_then(VecDeque::front);
        let entry = oldest.and_then(|upload| self.entries.get(upload));
        entry.is_some_and(|entry| now.saturating_sub(entry.at) >= KEPT_FOR)
    }

    fn drop_oldest(&mut self, repository: &Arc<str>) {
        let mut oldest = None;
        self.change(repository, |uploads| oldest = uploads.pop_front());
        if let Some(oldest) = oldest {
            self.entries.remove(&oldest);
        }
    }

    fn change(&mut self, repository: &Arc<str>, act: impl FnOnce(&mut VecDeque<UploadId>)) {
        let uploads = self
            .by_repository
            .entry(Arc::clone(repository))
            .or_default();
        let before = uploads.len();
        act(uploads);
        let after = uploads.len();
        self.by_count.remove(&(before, Arc::clone(repository)));
        if after == 0 {
            self.by_repository.remove(repository);
        } else {
            self.by_count.insert((after, Arc::clone(repository)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    fn upload(number: usize) -> UploadId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        UploadId::from_random(bytes)
    }

    /// Guards: many uploads of one repository remove its own entries, not another's; the number of entries is bounded,
    /// and they expire.
    #[test]
    fn a_busy_repository_loses_its_own_entries() {
        let mut finished = Finished::default();
        let digest = Digest::of(Algorithm::Sha256, b"");
        let now = Duration::from_secs(1);
        finished.add(upload(0), "quiet", digest, now);
        for number in 1..=2 * ENTRIES_MAX {
            finished.add(upload(number), "busy", digest, now);
        }
        assert_eq!(finished.entries.len(), ENTRIES_MAX);
        let known = |finished: &Finished, number, repository, now| {
            finished.get(upload(number), repository, now).is_some()
        };
        assert!(known(&finished, 0, "quiet", now));
        assert!(!known(&finished, 0, "busy", now), "of another repository");
        assert!(known(&finished, 2 * ENTRIES_MAX, "busy", now));
        assert!(!known(&finished, 1, "busy", now));
        let later = now + KEPT_FOR;
        assert!(!known(&finished, 0, "quiet", later));
        finished.expire(later);
        assert!(finished.entries.is_empty() && finished.by_repository.is_empty());
        assert!(finished.by_count.is_empty());
    }
}
