//! The choice of the upload that is ended when a limit is reached.
//!
//! Owns: [`EvictionOrder`]: the number of uploads of each repository, and the order in which uploads without a request
//! are ended. Refuses: ending them (`session_table`).
//!
//! Invariants: an upload that a request holds is never ended. One that was quiet for less than [`QUIET`] is ended only
//! for a repository with fewer uploads, and only in these cases: its repository has more than half of all places; or it
//! is empty, and its repository has at least two more, or the asking one has none. So a few repositories cannot fill
//! all places.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::vocabulary::UploadId;

/// An upload that received no byte and no request for this long is idle.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// Number of repositories, those with the most uploads, in which an empty upload is searched.
const LARGEST_ASKED: usize = 16;

/// The order in which uploads are ended: empty ones first, then the longest quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Whether it has bytes.
    pub(super) partial: bool,
    /// When it last received a request or a byte.
    pub(super) since: Duration,
}

type Ranked = (Rank, UploadId);

/// The disk space of an upload that receives nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdleSpace {
    /// Bytes on disk.
    pub(super) bytes: u64,
    /// How long it received nothing.
    pub(super) idle: Duration,
}

/// Chooses the upload that is ended when the disk is full or nearly full: the longest idle one, because its client is
/// the least likely to return. Of equally idle ones, the one with the most bytes on disk.
pub(super) fn longest_idle(
    uploads: impl Iterator<Item = (UploadId, IdleSpace)>,
) -> Option<UploadId> {
    let longest = uploads.max_by_key(|(_, space)| (space.idle, space.bytes));
    longest.map(|(id, _)| id)
}

/// Uploads by repository and rank.
#[derive(Debug, Default)]
pub(super) struct EvictionOrder {
    repositories: HashMap<Arc<str>, Repository>,
    /// Repositories by their number of uploads.
    by_count: BTreeSet<(usize, Arc<str>)>,
    /// Uploads without a request.
    waiting: BTreeSet<Ranked>,
    ranks: HashMap<UploadId, Rank>,
}

#[derive(Debug, Default)]
struct Repository {
    count: usize,
    waiting: BTreeSet<Ranked>,
}

impl EvictionOrder {
    /// Adds an upload of `repository`.
    pub(super) fn add(&mut self, repository: &str) {
        self.count(repository, |count| count + 1);
    }

    /// Removes an upload.
    pub(super) fn remove(&mut self, id: UploadId, repository: &str) {
        self.rank(id, repository, None);
        self.count(repository, |count| count.saturating_sub(1));
    }

    /// Sets an upload's place in the order; `None` while a request holds it.
    pub(super) fn rank(&mut self, id: UploadId, repository: &str, rank: Option<Rank>) {
        let Some(of) = self.repositories.get_mut(repository) else {
            return;
        };
        if let Some(before) = self.ranks.remove(&id) {
            self.waiting.remove(&(before, id));
            of.waiting.remove(&(before, id));
        }
        if let Some(rank) = rank {
            self.ranks.insert(id, rank);
            self.waiting.insert((rank, id));
            of.waiting.insert((rank, id));
        }
    }

    /// Returns the upload to be ended for a new one of `repository`, if there are `max` places.
    pub(super) fn evictable(
        &self,
        repository: &str,
        max: usize,
        now: Duration,
    ) -> Option<UploadId> {
        let is_quiet = |(rank, _): &Ranked| now.saturating_sub(rank.since) >= QUIET;
        let quiet = || firsts(&self.waiting).find(is_quiet);
        let crowd = self.by_count.last().filter(|(count, _)| *count > max / 2);
        let first = match crowd.and_then(|(_, name)| Some((name, self.repositories.get(name)?))) {
            // Uploads of other repositories are not ended for it.
            Some((name, of)) if **name == *repository => firsts(&of.waiting).find(is_quiet),
            Some((_, of)) => firsts(&of.waiting).next().or_else(quiet),
            None => quiet().or_else(|| self.empty_for(repository)),
        };
        first.map(|(_, id)| id)
    }

    /// Finds an empty upload, however short it was quiet, of a repository with more uploads than the asking one.
    fn empty_for(&self, repository: &str) -> Option<Ranked> {
        let own = self.repositories.get(repository).map_or(0, |of| of.count);
        let larger = self.by_count.iter().rev().take(LARGEST_ASKED);
        let mut larger = larger.take_while(|(count, _)| *count > own + 1);
        let empty = |of: &BTreeSet<Ranked>| of.first().filter(|(rank, _)| !rank.partial).copied();
        let of_larger = larger.find_map(|(_, name)| empty(&self.repositories.get(name)?.waiting));
        of_larger.or_else(|| empty(&self.waiting).filter(|_| own == 0))
    }

    fn count(&mut self, repository: &str, change: impl FnOnce(usize) -> usize) {
        let known = self.repositories.get_key_value(repository);
        let name = known.map_or_else(|| Arc::from(repository), |(name, _)| Arc::clone(name));
        let of = self.repositories.entry(Arc::clone(&name)).or_default();
        let (before, after) = (of.count, change(of.count));
        of.count = after;
        if after == 0 {
            self.repositories.remove(&name);
        }
        self.by_count.remove(&(before, Arc::clone(&name)));
        if after > 0 {
            self.by_count.insert((after, name));
        }
    }
}

fn first_partial() -> Ranked {
    let rank = Rank {
        partial: true,
        since: Duration::ZERO,
    };
    (rank, UploadId::from_bytes([0; 16]))
}

/// Yields the longest quiet empty upload, then the longest quiet partial one.
fn firsts(of: &BTreeSet<Ranked>) -> impl Iterator<Item = Ranked> {
    let empty = of.first().filter(|(rank, _)| !rank.partial);
    let partial = of.range(first_partial()..).next();
    empty.into_iter().chain(partial).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn id(number: u8) -> UploadId {
        UploadId::from_bytes([number; 16])
    }

    /// Makes uploads from (repository, partial, seconds of quiet), numbered from 1; a request holds those with `None`.
    fn order_of(uploads: &[(&str, bool, Option<u64>)]) -> EvictionOrder {
        let mut order = EvictionOrder::default();
        for (number, (repository, partial, quiet)) in (1..).zip(uploads) {
            order.add(repository);
            let rank = quiet.map(|quiet| Rank {
                partial: *partial,
                since: Duration::from_secs(100 - quiet),
            });
            order.rank(id(number), repository, rank);
        }
        order
    }

    /// Guards: empty uploads are ended before partial ones, then the longest quiet, and never one that a request holds.
    /// One that was quiet for a moment is ended only for a repository with fewer uploads: if its repository has more
    /// than half, or if it is empty.
    #[test]
    fn empty_and_longest_quiet_uploads_are_ended_first() {
        let (e, p) = (false, true);
        let cases = [
            (
                vec![("a", p, Some(9)), ("b", e, Some(3)), ("c", e, Some(5))],
                Some(3),
            ),
            (
                vec![("a", p, Some(9)), ("b", e, None), ("c", p, Some(8))],
                Some(1),
            ),
            (
                vec![("a", p, Some(9)), ("b", e, Some(1)), ("c", p, None)],
                Some(1),
            ),
            (
                vec![("a", p, Some(1)), ("b", p, Some(1)), ("c", e, None)],
                None,
            ),
            // The asking repository has none, and an empty upload costs least to end.
            (
                vec![("a", p, Some(1)), ("b", e, Some(0)), ("c", e, Some(1))],
                Some(3),
            ),
            // "a" has more than half: one of its uploads is ended at once, though others are older.
            (
                vec![("a", e, Some(0)), ("a", e, Some(1)), ("b", e, Some(9))],
                Some(2),
            ),
            (
                vec![("a", p, Some(0)), ("a", e, None), ("b", e, Some(9))],
                Some(1),
            ),
            (
                vec![("a", p, None), ("a", e, None), ("b", e, Some(9))],
                Some(3),
            ),
            // Not for an upload of the same repository.
            (
                vec![("new", e, Some(1)), ("new", e, Some(1)), ("b", e, Some(1))],
                None,
            ),
            (
                vec![("new", e, Some(1)), ("new", p, Some(2)), ("b", e, Some(9))],
                Some(2),
            ),
            // Nor are uploads of others ended for it.
            (
                vec![("new", e, Some(1)), ("new", p, None), ("b", p, Some(9))],
                None,
            ),
        ];
        for (uploads, expected) in cases {
            let found = order_of(&uploads).evictable("new", 3, NOW);
            assert_eq!(found, expected.map(id), "{uploads:?}");
        }
        // Three repositories share all places: each loses an empty one to a repository that has two fewer, and none to
        // the others.
        let crowd = ["a", "b", "c", "a", "b", "c", "a", "b", "c", "new"];
        let crowd: Vec<_> = crowd.map(|name| (name, e, Some(1))).into();
        let order = order_of(&crowd);
        assert!(order.evictable("new", 10, NOW).is_some());
        assert_eq!(order.evictable("a", 10, NOW), None);
    }

    /// Guards: an upload that ended leaves no entry.
    #[test]
    fn ended_uploads_leave_nothing() {
        let mut order = order_of(&[
            ("a", false, Some(9)),
            ("a", true, Some(3)),
            ("b", true, None),
        ]);
        for (number, repository) in [(2, "a"), (1, "a"), (3, "b")] {
            order.remove(id(number), repository);
        }
        assert!(order.repositories.is_empty() && order.by_count.is_empty());
        assert!(order.waiting.is_empty() && order.ranks.is_empty());
    }

    /// Guards: on a full disk the longest idle upload is ended, of equally idle ones the largest.
    #[test]
    fn the_longest_idle_space_is_freed() {
        let cases = [
            (vec![(100, 5), (100, 9), (100, 7)], Some(2)),
            (vec![(100, 5), (900, 5)], Some(2)),
            (vec![(1 << 40, 3), (1 << 10, 9000)], Some(2)),
            (vec![], None),
        ];
        for (idle, expected) in cases {
            let idle = (1..).zip(idle).map(|(number, (bytes, seconds))| {
                let idle = Duration::from_secs(seconds);
                (id(number), IdleSpace { bytes, idle })
            });
            assert_eq!(longest_idle(idle), expected.map(id));
        }
    }
}
