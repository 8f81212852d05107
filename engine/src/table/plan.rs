//! What a checkpoint rewrites: which partitions, in which groups, cut at which size.
//!
//! Owns: the policy, a pure function. Refuses: I/O and building files (`rewrite`).
//!
//! A partition is dirty if the frozen delta has a row in its range. Neighbours that are rewritten anyway are rewritten as
//! one group, so that small partitions merge and large ones split where they are written in any case; a small
//! clean partition beside a dirty one joins it.

use std::ops::{Bound, Range};

use bytes::Bytes;

use super::Delta;
use super::scan::{Bounds, as_slices};
use crate::format::base::ROW_OVERHEAD_BYTES;

/// Sizes of base files, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSizes {
    /// What files are cut to when they are cut.
    pub target_bytes: u64,
    /// A file larger than this is cut.
    pub split_bytes: u64,
}

impl Default for FileSizes {
    fn default() -> Self {
        Self {
            target_bytes: 8 << 20,
            split_bytes: 16 << 20,
        }
    }
}

/// A partition as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) first_key: Bytes,
    pub(super) bytes: u64,
}

/// Neighbouring partitions that are rewritten together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Which partitions go; empty for the first rows of a store.
    pub(super) partitions: Range<usize>,
    /// The keys they answer for.
    pub(super) bounds: Bounds,
    /// A new file begins once one has reached this size.
    pub(super) cut_bytes: u64,
}

/// The groups to rewrite, in key order. `standing` in key order.
pub(super) fn plan(standing: &[Standing], frozen: &Delta, sizes: FileSizes) -> Vec<Group> {
    if standing.is_empty() {
        let bounds = (Bound::Unbounded, Bound::Unbounded);
        let added = added_bytes(frozen, &bounds);
        let group = added.map(|added| Group {
            partitions: 0..0,
            bounds,
            cut_bytes: cut(added, sizes),
        });
        return group.into_iter().collect();
    }
    let added: Vec<Option<u64>> = (0..standing.len())
        .map(|number| added_bytes(frozen, &range_of(standing, &(number..number + 1))))
        .collect();
    let dirty = |number: usize| added.get(number).is_some_and(Option::is_some);
    let small = |part: &Standing| part.bytes < sizes.target_bytes / 4;
    let mut groups: Vec<(Range<usize>, u64)> = Vec::new();
    for (number, part) in standing.iter().enumerate() {
        let beside_dirty = dirty(number + 1) || number.checked_sub(1).is_some_and(dirty);
        if !(dirty(number) || (small(part) && beside_dirty)) {
            continue;
        }
        let bytes = part.bytes + added.get(number).copied().flatten().unwrap_or_default();
        match groups.last_mut() {
            Some((range, total)) if range.end == number => {
                range.end = number + 1;
                *total += bytes;
            }
            Some(_) | None => groups.push((number..number + 1, bytes)),
        }
    }
    groups
        .into_iter()
        .map(|(partitions, bytes)| {
            let bounds = range_of(standing, &partitions);
            Group {
                partitions,
                bounds,
                cut_bytes: cut(bytes, sizes),
            }
        })
        .collect()
}

/// Where to cut files that will hold about `bytes` together: one file up to the split size, else equal ones near
/// the target. A sixteenth of slack keeps an estimate that is a little short from ending in a tiny file.
fn cut(bytes: u64, sizes: FileSizes) -> u64 {
    if bytes <= sizes.split_bytes {
        return sizes.split_bytes;
    }
    let files = bytes.div_ceil(sizes.target_bytes.max(1));
    bytes.div_ceil(files) + sizes.target_bytes / 16
}

/// The keys that partitions answer for: the first also for all before it, the last for all behind it.
fn range_of(standing: &[Standing], partitions: &Range<usize>) -> Bounds {
    let first_key = |number: usize| standing.get(number).map(|part| part.first_key.clone());
    let from = first_key(partitions.start).filter(|_| partitions.start > 0);
    let to = first_key(partitions.end);
    (
        from.map_or(Bound::Unbounded, Bound::Included),
        to.map_or(Bound::Unbounded, Bound::Excluded),
    )
}

/// At most how many bytes the frozen rows add to a range; `None` if there are none, not even deletions.
fn added_bytes(frozen: &Delta, bounds: &Bounds) -> Option<u64> {
    let mut added = None;
    for (key, value) in frozen.range::<_, [u8]>(as_slices(bounds)) {
        let row = value
            .as_ref()
            .map_or(0, |value| key.len() + value.len() + ROW_OVERHEAD_BYTES);
        *added.get_or_insert(0) += row as u64;
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: FileSizes = FileSizes {
        target_bytes: 800,
        split_bytes: 1600,
    };

    fn standing(parts: &[(&str, u64)]) -> Vec<Standing> {
        let part = |(key, bytes): &(&str, u64)| Standing {
            first_key: Bytes::copy_from_slice(key.as_bytes()),
            bytes: *bytes,
        };
        parts.iter().map(part).collect()
    }

    fn delta(rows: &[(&str, Option<usize>)]) -> Delta {
        let row = |(key, length): &(&str, Option<usize>)| {
            (
                Bytes::copy_from_slice(key.as_bytes()),
                length.map(|length| Bytes::from(vec![0; length])),
            )
        };
        rows.iter().map(row).collect()
    }

    fn ranges(groups: &[Group]) -> Vec<(usize, usize)> {
        groups
            .iter()
            .map(|group| (group.partitions.start, group.partitions.end))
            .collect()
    }

    /// Guards: only partitions with frozen rows are rewritten; a key before the first partition is the first's.
    #[test]
    fn clean_partitions_stay() {
        let parts = standing(&[("d", 700), ("h", 700), ("p", 700), ("t", 700)]);
        assert!(plan(&parts, &Delta::new(), SIZES).is_empty());
        let groups = plan(&parts, &delta(&[("a", Some(1)), ("p", None)]), SIZES);
        assert_eq!(ranges(&groups), [(0, 1), (2, 3)]);
        assert_eq!(
            groups[0].bounds,
            (Bound::Unbounded, Bound::Excluded(Bytes::from_static(b"h")))
        );
        let last = plan(&parts, &delta(&[("zz", Some(1))]), SIZES);
        assert_eq!(
            last[0].bounds,
            (Bound::Included(Bytes::from_static(b"t")), Bound::Unbounded)
        );
    }

    /// Guards: neighbours are one group, and a small clean partition joins a dirty neighbour.
    #[test]
    fn neighbours_and_small_ones_merge() {
        let parts = standing(&[("a", 700), ("h", 199), ("p", 700), ("t", 199), ("x", 700)]);
        let groups = plan(&parts, &delta(&[("a", None)]), SIZES);
        assert_eq!(ranges(&groups), [(0, 2)]);
        assert_eq!(groups[0].cut_bytes, 1600);
        let groups = plan(&parts, &delta(&[("a", None), ("p", None)]), SIZES);
        assert_eq!(ranges(&groups), [(0, 4)]);
    }

    /// Guards: what outgrows the split size is cut into equal files near the target, also in an empty store.
    #[test]
    fn large_groups_are_cut() {
        let groups = plan(
            &standing(&[("a", 1500)]),
            &delta(&[("b", Some(180))]),
            SIZES,
        );
        // 1500 + 1 + 180 + 20 = 1701 bytes: three files of 567, and a sixteenth of 800.
        assert_eq!(groups[0].cut_bytes, 617);
        let groups = plan(&[], &delta(&[("b", Some(4000))]), SIZES);
        assert_eq!(ranges(&groups), [(0, 0)]);
        assert!(groups[0].cut_bytes < 800);
        assert!(plan(&[], &Delta::new(), SIZES).is_empty());
    }
}
