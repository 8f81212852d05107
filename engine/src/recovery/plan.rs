//! What has to be done before a store takes writes. Pure: facts in, a plan out.
//!
//! Owns: which files go, and the numbers a new epoch starts with. Refuses: touching the disk.

use std::collections::BTreeSet;

use crate::extent::{Lsn, SegmentId};
use crate::journal::Predecessor;
use crate::journal::read::Walked;
use crate::journal::scan::Tail;
use crate::limits::{COUNTER_USED_MAX, FRAME_TRANSACTIONS_MAX};

/// What the disk and the journal say.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The walk through the journal.
    pub walked: Walked,
    /// Segment ids from here on were never given out, says the journal.
    pub segment_limit: SegmentId,
    /// LSN of the state, which a checkpoint may have put ahead of the walk.
    pub state_lsn: Lsn,
    /// Segments that hold live blobs.
    pub named: BTreeSet<SegmentId>,
    /// Segments that unfinished uploads own.
    pub uploading: BTreeSet<SegmentId>,
    /// Segment files found; `None` after a clean stop that left a checkpoint, when no directory is walked.
    pub found: Option<BTreeSet<SegmentId>>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Segment files that nothing names.
    pub orphans: Vec<SegmentId>,
    /// Segments that hold live blobs and have no file: damage to report, nothing to do about it here.
    pub missing: Vec<SegmentId>,
    /// A journal file whose creation was cut short.
    pub unfinished_journal: Option<u64>,
    /// The file that the new epoch's first one follows; `None` in a new store.
    pub previous: Option<Predecessor>,
    /// The new epoch.
    pub epoch: u64,
    /// Its first LSN: past all that a lost frame may have carried.
    pub first_lsn: Lsn,
}

/// Whether the journal can be the whole one. An id is used only after its reservation is durable, so a segment
/// with an id that was never given out says that the journal's end is missing: then nothing may be changed.
pub fn check(facts: &Facts) -> Result<(), SegmentId> {
    let found = facts.found.as_ref();
    let newer = found.and_then(|found| found.range(facts.segment_limit..).next());
    newer.map_or(Ok(()), |newer| Err(*newer))
}

/// Whether there are numbers left to count on with, in a store whose next repository would get `next_repository`. Checksums do not tell
/// a number that was forged.
pub fn can_count_on(facts: &Facts, next_repository: u64) -> bool {
    let last = facts.walked.last.as_ref();
    let counters = [
        facts.state_lsn.0,
        facts.walked.last_lsn.0,
        facts.walked.end.number,
        facts.segment_limit.0,
        next_repository,
        last.map_or(0, |header| header.epoch),
    ];
    counters.iter().all(|counter| *counter <= COUNTER_USED_MAX)
}

/// Draws up the plan.
pub fn plan(facts: &Facts) -> Plan {
    let found = facts.found.as_ref();
    let orphans = found.map_or_else(Vec::new, |found| {
        found
            .iter()
            .copied()
            .filter(|id| !facts.named.contains(id) && !facts.uploading.contains(id))
            .collect()
    });
    let missing = found.map_or_else(Vec::new, |found| {
        facts.named.difference(found).copied().collect()
    });
    let last_lsn = facts.state_lsn.max(facts.walked.last_lsn);
    Plan {
        orphans,
        missing,
        unfinished_journal: facts.walked.unfinished,
        previous: facts.walked.last.as_ref().map(|last| Predecessor {
            end: facts.walked.end,
            nonce: last.nonce,
            lsn: facts.walked.last_lsn,
        }),
        epoch: facts
            .walked
            .last
            .as_ref()
            .map_or(1, |header| header.epoch + 1),
        first_lsn: Lsn(last_lsn.0 + 1 + FRAME_TRANSACTIONS_MAX as u64),
    }
}

/// Whether the store was closed cleanly.
pub fn closed_cleanly(walked: &Walked) -> bool {
    walked.tail == Tail::Clean && walked.unfinished.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Position;

    fn facts() -> Facts {
        let walked = Walked {
            last: None,
            end: Position {
                number: 3,
                offset: 8192,
            },
            last_frame: 4096,
            tail: Tail::Torn,
            last_lsn: Lsn(10),
            unfinished: Some(4),
            files: 0,
            frames: 0,
            transactions: 0,
            harmless: Vec::new(),
            unsettled: Vec::new(),
            unsound: Vec::new(),
        };
        let ids = |ids: &[u64]| ids.iter().copied().map(SegmentId).collect::<BTreeSet<_>>();
        Facts {
            walked,
            segment_limit: SegmentId(5),
            state_lsn: Lsn(10),
            named: ids(&[1, 2, 9]),
            uploading: ids(&[3]),
            found: Some(ids(&[1, 2, 3, 4])),
        }
    }

    /// Guards: only files that nothing names go; what is named and gone is reported.
    #[test]
    fn orphans_go_and_missing_segments_are_reported() {
        let plan = plan(&facts());
        assert_eq!(plan.orphans, [SegmentId(4)]);
        assert_eq!(plan.missing, [SegmentId(9)]);
        assert_eq!(plan.unfinished_journal, Some(4));
    }

    /// Guards: a segment that the journal cannot know of says that the end of the journal is missing.
    #[test]
    fn a_segment_newer_than_the_journal_is_noticed() {
        assert_eq!(check(&facts()), Ok(()));
        let mut facts = facts();
        facts.segment_limit = SegmentId(4);
        assert_eq!(check(&facts), Err(SegmentId(4)));
    }

    /// Guards: LSNs that a lost frame may have carried are never used again.
    #[test]
    fn the_lsn_skips_what_a_lost_frame_may_have_carried() {
        assert_eq!(plan(&facts()).first_lsn, Lsn(10 + 1 + 4096));
    }

    /// Guards: a store that has used up its numbers is noticed before one of them is given out twice.
    #[test]
    fn numbers_that_are_used_up_are_noticed() {
        let (used, over) = (COUNTER_USED_MAX, COUNTER_USED_MAX + 1);
        assert!(can_count_on(&facts(), used) && !can_count_on(&facts(), over));
        let mut far = facts();
        far.segment_limit = SegmentId(over);
        assert!(!can_count_on(&far, 1));
        far = facts();
        far.walked.last_lsn = Lsn(over);
        assert!(!can_count_on(&far, 1));
    }

    /// Guards: without a listing (clean stop) nothing is called an orphan.
    #[test]
    fn a_clean_stop_finds_no_orphans() {
        let mut facts = facts();
        facts.found = None;
        assert_eq!(
            (plan(&facts).orphans, plan(&facts).missing),
            (vec![], vec![])
        );
    }
}
