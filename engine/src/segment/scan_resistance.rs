//! Which bytes of huge blobs stay in the page cache.
//!
//! Owns: [`ScanResistance`]. Refuses: reading.
//!
//! A huge blob would push everything else out of the cache, and its own beginning too, before it is read again. So what
//! its reads bring in stays only if it is read a second time soon after (2Q; Johnson and Shasha, VLDB 1994). One
//! pull leaves nothing behind. Of many at the same time the second reads from the drive again, and the others share
//! what it read.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use crate::extent::SegmentId;
use crate::sync::Mutex;

/// A blob is huge if it is longer than this part of the memory for the cache. What was read within this many bytes of
/// huge blobs counts as read soon before.
const CACHE_PART: u64 = 4;
/// Unit in which reads are remembered, in bytes.
const UNIT_BYTES: u64 = 1 << 20;
/// Most units that are remembered, so that a machine with much memory needs only a few MiB for them.
const UNITS_MAX: u64 = 64 << 10;

/// Remembers what was read of huge blobs, and did not stay.
#[derive(Debug)]
pub(super) struct ScanResistance {
    huge_bytes: u64,
    units_max: usize,
    recent: Mutex<RecentUnits>,
}

/// The last units that were read, each once.
#[derive(Debug, Default)]
struct RecentUnits {
    known: HashSet<(SegmentId, u64)>,
    /// Oldest first.
    order: VecDeque<(SegmentId, u64)>,
}

impl ScanResistance {
    /// Creates it for a page cache of at most `cache_bytes`.
    pub(super) fn new(cache_bytes: u64) -> Self {
        let huge_bytes = cache_bytes / CACHE_PART;
        let units_max = (huge_bytes / UNIT_BYTES).min(UNITS_MAX);
        Self {
            huge_bytes,
            units_max: usize::try_from(units_max).unwrap_or(usize::MAX),
            recent: Mutex::default(),
        }
    }

    /// Returns whether a blob of `length` bytes is huge.
    pub(super) fn is_huge(&self, length: u64) -> bool {
        length > self.huge_bytes
    }

    /// Returns whether what a read of `span` of a huge blob brings into the page cache stays there. If it does not, the
    /// units that end in it are remembered. `segment` is the blob's own.
    pub(super) fn keeps(&self, segment: SegmentId, span: &Range<u64>) -> bool {
        let mut recent = self.recent.lock();
        // A reader that comes from the unit before has not yet read this one to its end.
        if recent.known.contains(&(segment, span.start / UNIT_BYTES)) {
            return true;
        }
        for unit in span.start / UNIT_BYTES..span.end / UNIT_BYTES {
            if recent.known.insert((segment, unit)) {
                recent.order.push_back((segment, unit));
            }
        }
        while recent.order.len() > self.units_max
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.known.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const BLOB: u64 = 100 * MIB;

    /// Returns whether each window of a read of a whole blob stays.
    fn read(cache: &ScanResistance, segment: u64, window: u64) -> Vec<bool> {
        let starts = (0..BLOB / window).map(|number| number * window);
        let keeps = |start| cache.keeps(SegmentId(segment), &(start..start + window));
        starts.map(keeps).collect()
    }

    /// Guards: one read of a huge blob leaves nothing in the page cache, whatever the size of its windows.
    #[test]
    fn one_read_of_a_huge_blob_leaves_nothing() {
        for window in [MIB / 4, MIB * 3 / 4, MIB, 8 * MIB] {
            let cache = ScanResistance::new(4 * BLOB - 4);
            assert!(cache.is_huge(BLOB) && !cache.is_huge(BLOB - 1));
            let kept = read(&cache, 1, window);
            assert!(kept.iter().all(|keeps| !keeps), "{window}: {kept:?}");
        }
    }

    /// Guards: what a second reader reads soon after the first stays. What is read again after more than fits does not,
    /// and only that much is remembered.
    #[test]
    fn what_is_read_again_soon_stays() {
        let cache = ScanResistance::new(4 * BLOB - 4);
        let window = |number: u64| 8 * MIB * number..8 * MIB * (number + 1);
        for number in 0..10 {
            assert!(!cache.keeps(SegmentId(1), &window(number)));
            let follows = number.checked_sub(2);
            let follows = follows.map(|number| cache.keeps(SegmentId(1), &window(number)));
            assert_ne!(follows, Some(false), "{number}");
        }
        let cache = ScanResistance::new(4 * BLOB - 4);
        read(&cache, 1, MIB);
        read(&cache, 2, MIB);
        assert!(read(&cache, 1, MIB).iter().all(|keeps| !keeps));
        assert_eq!(cache.recent.lock().known.len(), cache.units_max);
    }
}
