//! Plans what an open does before the store accepts writes. Pure: facts in, a plan out.
//!
//! Owns: which files are removed, and the numbers that a new epoch starts with. Refuses: I/O.

use std::collections::{BTreeMap, BTreeSet};

use crate::extent::{Lsn, SegmentId};
use crate::format::scan::Tail;
use crate::journal::Predecessor;
use crate::journal::read::JournalWalk;
use crate::limits::{COUNTER_USED_MAX, FRAME_TRANSACTIONS_MAX};

/// What is on disk and in the journal.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// Result of the walk through the journal.
    pub walked: JournalWalk,
    /// First segment id that was never given out, according to the journal.
    pub segment_limit: SegmentId,
    /// LSN of the state. A checkpoint may be ahead of the walk.
    pub state_lsn: Lsn,
    /// Segments that hold live blobs, with the bytes that each must have.
    pub named: BTreeMap<SegmentId, u64>,
    /// Segments that unfinished uploads own.
    pub uploading: BTreeSet<SegmentId>,
    /// Segment files found, with their sizes in bytes.
    pub found: BTreeMap<SegmentId, u64>,
    /// Whether a clean stop left a checkpoint. It removed orphans itself.
    pub tidy: bool,
}

/// What an open has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Segment files that nothing names.
    pub orphans: Vec<SegmentId>,
    /// Segments that hold live blobs and have no file. Their blobs are damaged.
    pub missing: Vec<SegmentId>,
    /// Segments whose file ends before the last record that was placed there, with the size of the file. Blobs after
    /// its end are damaged.
    pub truncated: Vec<(SegmentId, u64)>,
    /// A journal file whose creation was cut short.
    pub unfinished_journal: Option<u64>,
    /// The file before the new epoch's first one; `None` in a new store.
    pub previous: Option<Predecessor>,
    /// The new epoch.
    pub epoch: u64,
    /// First LSN of the new epoch, above all that a lost frame may have carried.
    pub first_lsn: Lsn,
}

/// Checks that the journal can be complete.
///
/// An id is used only after its reservation is durable. So a segment with an id that was never given out means that the
/// journal's end is missing, and then nothing may be changed.
pub(crate) fn check(facts: &Facts) -> Result<(), SegmentId> {
    let newer = facts.found.range(facts.segment_limit..).next();
    newer.map_or(Ok(()), |(newer, _)| Err(*newer))
}

/// Whether all counters of the store are below [`COUNTER_USED_MAX`], so that more can be given out. Checksums do not
/// detect a forged number. The next new repository would get `next_repository`.
pub(crate) fn has_numbers_left(facts: &Facts, next_repository: u64) -> bool {
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

/// Returns the plan.
pub(crate) fn plan(facts: &Facts) -> Plan {
    let unnamed = |id: &&SegmentId| !facts.named.contains_key(id) && !facts.uploading.contains(id);
    let orphans = if facts.tidy {
        Vec::new()
    } else {
        facts.found.keys().filter(unnamed).copied().collect()
    };
    let (mut missing, mut truncated) = (Vec::new(), Vec::new());
    for (id, needed) in &facts.named {
        match facts.found.get(id) {
            None => missing.push(*id),
            Some(there) if there < needed => truncated.push((*id, *there)),
            Some(_) => {}
        }
    }
    let last_lsn = facts.state_lsn.max(facts.walked.last_lsn);
    Plan {
        orphans,
        missing,
        truncated,
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
pub(crate) fn closed_cleanly(walked: &JournalWalk) -> bool {
    walked.tail == Tail::Clean && walked.unfinished.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Position;

    fn facts() -> Facts {
        let walked = JournalWalk {
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
            uncertain_marks: Vec::new(),
            damage_before_start: Vec::new(),
        };
        let sized = |ids: &[(u64, u64)]| {
            let ids = ids.iter().map(|(id, bytes)| (SegmentId(*id), *bytes));
            ids.collect::<BTreeMap<_, _>>()
        };
        Facts {
            walked,
            segment_limit: SegmentId(5),
            state_lsn: Lsn(10),
            named: sized(&[(1, 5000), (2, 5000), (9, 5000)]),
            uploading: BTreeSet::from([SegmentId(3)]),
            found: sized(&[(1, 5000), (2, 4999), (3, 0), (4, 0)]),
            tidy: false,
        }
    }

    /// Guards: only files that nothing names are removed; a named segment that is missing or cut is reported.
    #[test]
    fn orphans_are_removed_and_missing_segments_reported() {
        let plan = plan(&facts());
        assert_eq!(plan.orphans, [SegmentId(4)]);
        assert_eq!(plan.missing, [SegmentId(9)]);
        assert_eq!(plan.truncated, [(SegmentId(2), 4999)]);
        assert_eq!(plan.unfinished_journal, Some(4));
    }

    /// Guards: a segment that the journal cannot know shows that the end of the journal is missing.
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

    /// Guards: a store that has used up its numbers is detected before one of them is given out twice.
    #[test]
    fn numbers_that_are_used_up_are_noticed() {
        let (used, over) = (COUNTER_USED_MAX, COUNTER_USED_MAX + 1);
        assert!(has_numbers_left(&facts(), used) && !has_numbers_left(&facts(), over));
        let mut far = facts();
        far.segment_limit = SegmentId(over);
        assert!(!has_numbers_left(&far, 1));
        far = facts();
        far.walked.last_lsn = Lsn(over);
        assert!(!has_numbers_left(&far, 1));
    }

    /// Guards: after a clean stop, which leaves no orphans, no segment counts as one; missing ones are still reported.
    #[test]
    fn a_clean_stop_finds_no_orphans() {
        let mut facts = facts();
        facts.tidy = true;
        assert_eq!(plan(&facts).orphans, []);
        assert_eq!(plan(&facts).missing, [SegmentId(9)]);
    }
}
