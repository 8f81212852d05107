//! Checkpoints: durable images of the rows at one LSN, from which a replay starts.
//!
//! Owns: `runs/` and `checkpoint.0`, `.1`, `.2`, all of them caches: damage costs a replay of the journal. Refuses:
//! freezing and publishing states; the sequencer does that around [`flush`].

mod load;
mod policy;
mod publish;

use std::sync::Arc;

pub(crate) use load::{Chosen, Loaded, check_fallback, load};
pub(crate) use policy::{Backlog, Thresholds, is_due};
pub(crate) use publish::{Positions, Published, flush, publish};

use crate::format::checkpoint::CheckpointRecord;
use crate::journal::Position;

/// Number of files that checkpoint records are written to in turn.
const SLOTS: u64 = 3;

/// The checkpoints known to be on disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    // The highest sequence number seen, usable or not. The next one is higher.
    sequence: u64,
    newest: Option<Arc<CheckpointRecord>>,
    older: Option<Arc<CheckpointRecord>>,
}

impl History {
    /// Returns the newest usable checkpoint.
    pub(crate) fn newest(&self) -> Option<&Arc<CheckpointRecord>> {
        self.newest.as_ref()
    }

    /// Returns the one before. The journal is needed from here on.
    pub(crate) fn older(&self) -> Option<&Arc<CheckpointRecord>> {
        self.older.as_ref()
    }

    fn next_sequence(&self) -> u64 {
        self.sequence + 1
    }

    /// Returns the history after `record` became durable.
    fn with(&self, record: Arc<CheckpointRecord>) -> Self {
        Self {
            sequence: record.sequence,
            newest: Some(record),
            older: self.newest.clone(),
        }
    }
}

/// Returns where the journal continues after a checkpoint.
pub(crate) fn position_of(record: &CheckpointRecord) -> Position {
    Position {
        number: record.journal_number,
        offset: record.journal_offset,
    }
}

/// Returns the name of the file for a sequence number.
fn slot_name(sequence: u64) -> String {
    format!("checkpoint.{}", sequence % SLOTS)
}

/// Whether `name` is the name of a file for checkpoint records.
pub(crate) fn is_slot_name(name: &str) -> bool {
    (0..SLOTS).any(|slot| slot_name(slot) == name)
}
