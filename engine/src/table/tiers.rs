//! The policy of merges: a pure function of the runs' sizes.
//!
//! Owns: [`Tiers`]. Refuses: I/O (`merge`).
//!
//! A run belongs to the tier of its size; tier `n + 1` begins at `fanout` times the size of tier `n`. A run counts into
//! no lower tier than the newer ones before it, so that neighbours in the list are neighbours in tiers. As soon as a
//! tier has `fanout` runs, all of them become one. So each row is written once per tier, and the number of runs grows
//! with the logarithm of the store's size (size-tiered merging; O'Neil et al. 1996, Jagadish et al. 1997).

use std::ops::Range;

/// Sizes of tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tiers {
    /// Number of runs of a tier that are merged into one.
    pub fanout: usize,
    /// Size in bytes from which a run belongs to the second tier, divided by `fanout`.
    pub unit_bytes: u64,
}

impl Default for Tiers {
    fn default() -> Self {
        Self {
            fanout: 4,
            unit_bytes: 4 << 20,
        }
    }
}

impl Tiers {
    /// Returns the runs to merge next, as a range of the list. `sizes` has the sizes of all runs in bytes, newest
    /// first.
    pub(crate) fn due(&self, sizes: &[u64]) -> Option<Range<usize>> {
        let mut start = 0;
        let mut current = 0;
        for (number, size) in sizes.iter().enumerate() {
            let tier = self.tier(*size);
            if tier > current {
                if number - start >= self.fanout {
                    return Some(start..number);
                }
                (start, current) = (number, tier);
            }
        }
        (sizes.len() - start >= self.fanout).then_some(start..sizes.len())
    }

    fn tier(&self, size: u64) -> u32 {
        let units = size / self.unit_bytes.max(1);
        units.checked_ilog(self.fanout.max(2) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIERS: Tiers = Tiers {
        fanout: 4,
        unit_bytes: 10,
    };

    /// Guards: a tier is merged as soon as it is full, whole, and the newest tier first; sizes below the unit are one
    /// tier.
    #[test]
    fn full_tiers_are_merged() {
        assert_eq!(TIERS.due(&[]), None);
        assert_eq!(TIERS.due(&[11, 12, 13]), None);
        assert_eq!(TIERS.due(&[1, 12, 39, 4]), Some(0..4));
        assert_eq!(TIERS.due(&[1, 1, 1, 1, 1, 50]), Some(0..5));
        assert_eq!(TIERS.due(&[1, 1, 1, 50, 50, 50]), None);
        assert_eq!(TIERS.due(&[1, 50, 50, 50, 159]), Some(1..5));
        assert_eq!(TIERS.due(&[1, 50, 50, 50, 160]), None);
        assert_eq!(TIERS.due(&[1, 50, 50, 50, 50, 700]), Some(1..5));
    }

    /// Guards: a run that is smaller than newer ones, because its rows were deleted, is merged with them and delays no
    /// merge.
    #[test]
    fn a_small_old_run_counts_with_the_newer_ones() {
        assert_eq!(TIERS.due(&[50, 50, 50, 1]), Some(0..4));
        assert_eq!(TIERS.due(&[1, 1, 1, 50, 1, 50, 1]), Some(3..7));
    }

    /// Guards: over a fill of any length, rows are written about once per tier and runs are few.
    #[test]
    fn writes_and_runs_grow_with_the_logarithm() {
        let (mut runs, mut written, flushes) = (Vec::new(), 0_u64, 1000_u64);
        for _ in 0..flushes {
            runs.insert(0, 11);
            written += 11;
            while let Some(range) = TIERS.due(&runs) {
                let merged: u64 = runs.drain(range.clone()).sum();
                written += merged;
                runs.insert(range.start, merged);
            }
            assert!(runs.len() <= 15, "{runs:?}");
        }
        // log4(1000) = 4.98.
        assert!(written <= 6 * 11 * flushes, "{written}");
    }
}
