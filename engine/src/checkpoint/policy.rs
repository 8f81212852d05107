//! The policy of when a checkpoint starts. Pure.
//!
//! Owns: [`Thresholds`] and [`is_due`]. Refuses: measuring and starting (`commit`).

/// What has accumulated since the last checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Estimated memory of the live delta in bytes.
    pub delta_bytes: usize,
    /// Bytes of journal that a restart would replay.
    pub journal_bytes: u64,
    /// Whether a checkpoint runs now.
    pub running: bool,
}

/// Bounds on what may accumulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thresholds {
    /// Bytes of delta. Bounds memory: while a checkpoint runs, a frozen delta of this size and a live one coexist.
    pub delta_bytes: usize,
    /// Bytes of journal. Bounds the time that a restart takes.
    pub journal_bytes: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            delta_bytes: 32 << 20,
            journal_bytes: 256 << 20,
        }
    }
}

/// Whether to start a checkpoint: one at a time, and none for an empty delta.
pub(crate) fn is_due(backlog: Backlog, thresholds: Thresholds) -> bool {
    let enough = backlog.delta_bytes >= thresholds.delta_bytes
        || backlog.journal_bytes >= thresholds.journal_bytes;
    enough && backlog.delta_bytes > 0 && !backlog.running
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: either bound starts a checkpoint; a running one or an empty delta does not.
    #[test]
    fn either_bound_starts_one() {
        let thresholds = Thresholds {
            delta_bytes: 10,
            journal_bytes: 100,
        };
        let due = |delta_bytes, journal_bytes, running| {
            is_due(
                Backlog {
                    delta_bytes,
                    journal_bytes,
                    running,
                },
                thresholds,
            )
        };
        assert!(!due(9, 99, false));
        assert!(due(10, 0, false));
        assert!(due(1, 100, false));
        assert!(!due(0, 100, false));
        assert!(!due(10, 100, true));
    }
}
