//! Which bytes of huge blobs stay in the page cache.
//!
//! Owns: [`ScanResistance`]. Refuses: reading.
//!
//! A huge blob would push everything else out of the cache, and its own beginning too, before it is read again. So what
//! its reads bring in stays only if it is read a second time soon after (2Q; Johnson and Shasha, VLDB 1994). One
//! pull leaves nothing behind. Of many, at the same time or one after the other, the second reads from the drive again,
//! and the others share what it read.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use crate::extent::SegmentId;
use crate::sync::Mutex;

/// A blob is huge if it is longer than this part of the memory for the cache.
const HUGE_PART: u64 = 4;
/// Smallest unit in which reads are remembered, in bytes.
const UNIT_BYTES_MIN: u64 = 1 << 20;
/// Most units that are remembered, which take a few MiB. They cover as much as the cache has, because what was read
/// before that would not be in it any more.
const UNITS_MAX: u64 = 64 << 10;

/// Remembers what was read of huge blobs.
#[derive(Debug)]
pub(super) struct ScanResistance {
    huge_bytes: u64,
    unit_bytes: u64,
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
        let unit_bytes = (cache_bytes / UNITS_MAX).max(UNIT_BYTES_MIN);
        Self {
            huge_bytes: cache_bytes / HUGE_PART,
            unit_bytes,
            units_max: usize::try_from(cache_bytes / unit_bytes).unwrap_or(usize::MAX),
            recent: Mutex::default(),
        }
    }

    /// Returns whether a blob of `length` bytes is huge.
    pub(super) fn is_huge(&self, length: u64) -> bool {
        length > self.huge_bytes
    }

    /// Returns whether the unit of a huge blob at `offset` was read to its end lately. So what is read there stays. A
    /// reader that comes from the unit before has not. `segment` is the blob's own.
    pub(super) fn was_read(&self, segment: SegmentId, offset: u64) -> bool {
        let unit = (segment, offset / self.unit_bytes);
        self.recent.lock().known.contains(&unit)
    }

    /// Remembers the units of a huge blob that end in `span`, which was read.
    pub(super) fn remember(&self, segment: SegmentId, span: &Range<u64>) {
        let mut recent = self.recent.lock();
        for unit in span.start / self.unit_bytes..span.end / self.unit_bytes {
            if recent.known.insert((segment, unit)) {
                recent.order.push_back((segment, unit));
            }
        }
        while recent.order.len() > self.units_max
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const BLOB: u64 = 100 * MIB;

    /// Returns how many windows of a read of a whole blob stay.
    fn read(cache: &ScanResistance, segment: u64, window: u64) -> u64 {
        let mut stay = 0;
        for number in 0..BLOB / window {
            let span = number * window..(number + 1) * window;
            stay += u64::from(cache.was_read(SegmentId(segment), span.start));
            cache.remember(SegmentId(segment), &span);
        }
        stay
    }

    /// Guards: one read of a huge blob leaves nothing in the page cache, whatever the size of its windows. What a
    /// second one reads stays, if the blob can be in the cache.
    #[test]
    fn the_second_read_stays() {
        for window in [MIB / 4, MIB / 2, MIB, 2 * MIB] {
            let cache = ScanResistance::new(2 * BLOB);
            assert!(cache.is_huge(BLOB) && !cache.is_huge(BLOB / 2));
            assert_eq!(read(&cache, 1, window), 0, "{window}");
            assert_eq!(read(&cache, 1, window), BLOB / window, "{window}");
        }
    }

    /// Guards: what is read again after more than the cache has does not stay, and only that much is remembered, also
    /// for a large cache.
    #[test]
    fn only_as_much_as_the_cache_has_is_remembered() {
        let cache = ScanResistance::new(2 * BLOB);
        for segment in [1, 2, 3, 1] {
            assert_eq!(read(&cache, segment, MIB), 0, "{segment}");
        }
        assert_eq!(cache.recent.lock().known.len() as u64 * MIB, 2 * BLOB);
        let large = ScanResistance::new(1 << 50);
        assert_eq!(large.units_max as u64, UNITS_MAX);
    }
}
