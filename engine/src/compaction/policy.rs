//! Which segments are compacted, and in which order.
//!
//! Owns: [`choose`]. The benefit of a segment is the space that comes back for each byte that is copied (Rosenblum and
//! Ousterhout, "The design and implementation of a log-structured file system", without the age: blobs do not change,
//! so what is old is not more likely to stay).

use crate::extent::SegmentId;
use crate::format::keys::SegmentUse;
use crate::format::segment::HEADER_BYTES;

/// In the background, a segment is compacted if at least one in this number of its bytes is dead.
const BACKGROUND_DEAD_PART: u64 = 4;
/// In the background, a segment with fewer dead bytes is not compacted.
const BACKGROUND_DEAD_BYTES_MIN: u64 = 1 << 20;
/// On request, a segment is compacted if at least one in this number of its bytes is dead.
const FULL_DEAD_PART: u64 = 64;

/// How much work is worth the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Dead bytes take at most a third of the live ones' space.
    Background,
    /// As little space as possible.
    Full,
}

/// A shared segment, and what of it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The segment.
    pub id: SegmentId,
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes of these that belong to records of live blobs.
    pub live: u64,
}

impl Candidate {
    /// Describes a segment. `bytes` is the length of its file, if that is known; records after the last one that was
    /// ever live do not count otherwise.
    pub(crate) fn new(id: SegmentId, used: &SegmentUse, bytes: Option<u64>) -> Self {
        Self {
            id,
            bytes: bytes.unwrap_or(used.end).max(used.end),
            live: used.record_bytes,
        }
    }

    /// Returns the bytes that come back if its live blobs are moved.
    pub(crate) fn dead(&self) -> u64 {
        self.bytes
            .saturating_sub(self.live)
            .saturating_sub(HEADER_BYTES as u64)
    }

    fn is_worth(&self, effort: Effort) -> bool {
        let dead = self.dead();
        match effort {
            Effort::Background => {
                dead >= BACKGROUND_DEAD_BYTES_MIN && dead >= self.bytes / BACKGROUND_DEAD_PART
            }
            Effort::Full => dead > 0 && dead >= self.bytes / FULL_DEAD_PART,
        }
    }
}

/// Returns the segments that are worth `effort`, the greatest benefit first.
pub(crate) fn choose(candidates: Vec<Candidate>, effort: Effort) -> Vec<Candidate> {
    let mut chosen = candidates;
    chosen.retain(|candidate| candidate.is_worth(effort));
    // Without a division: dead / live of one against the other, and the older first among equals.
    chosen.sort_by(|one, other| {
        let benefit = |a: &Candidate, b: &Candidate| u128::from(a.dead()) * u128::from(b.live);
        benefit(other, one)
            .cmp(&benefit(one, other))
            .then(one.id.cmp(&other.id))
    });
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: u64, bytes: u64, live: u64) -> Candidate {
        Candidate {
            id: SegmentId(id),
            bytes: bytes + HEADER_BYTES as u64,
            live,
        }
    }

    fn ids(chosen: &[Candidate]) -> Vec<u64> {
        chosen.iter().map(|one| one.id.0).collect()
    }

    /// Guards: most space for each copied byte first; what is hardly worth copying is left to a full compaction, and a
    /// segment without garbage to none.
    #[test]
    fn the_greatest_benefit_comes_first() {
        const MIB: u64 = 1 << 20;
        let all = vec![
            candidate(1, 100 * MIB, 70 * MIB),
            candidate(2, 100 * MIB, 10 * MIB),
            candidate(3, 100 * MIB, 90 * MIB),
            candidate(4, 100 * MIB, 100 * MIB),
            candidate(5, 10 * MIB, MIB),
            candidate(6, MIB / 2, 0),
        ];
        let background = choose(all.clone(), Effort::Background);
        assert_eq!(ids(&background), [2, 5, 1]);
        let full = choose(all, Effort::Full);
        assert_eq!(ids(&full), [6, 2, 5, 1, 3]);
        assert_eq!(
            full.iter().map(Candidate::dead).sum::<u64>(),
            100 * MIB + 39 * MIB + MIB / 2
        );
    }
}
