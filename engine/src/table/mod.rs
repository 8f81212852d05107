//! The one ordered table of index and catalog: rows in layers, newest first.
//!
//! Owns: [`Layers`], the value a state of the store holds: a live delta, at most one frozen delta (while a
//! checkpoint runs) and the [`Runs`] on disk. A lookup asks them in that order. Policy (`tiers`) says which runs are merged;
//! `change` and `write` carry it out.
//! Refuses: knowing what a row means; a key's first byte names its table, the rest is the catalog's.
//!
//! Invariants: a value that was cloned never changes; clones share structure and cost O(1). A row that no
//! layer below holds may still be deleted: a deletion is kept until no older run is left below it. Nothing here waits for the disk
//! but opening, writing and [`resident()`].

mod builder;
mod change;
mod cursor;
mod filter;
mod open;
mod page_cache;
mod resident;
mod run;
mod runs;
mod scan;
mod site;
mod tiers;
mod write;

use std::ops::Bound;

use bytes::Bytes;

pub use change::{Merged, NewRuns, flush, merge};
pub use page_cache::PageCache;
pub use resident::{resident, resident_off_worker};
pub use run::Unusable;
pub(crate) use run::{file_id, file_name};
pub use runs::Runs;
pub use scan::Scan;
pub use site::{PageSizes, Site};
pub use tiers::Tiers;

use crate::error::Result;
use crate::format::row::group_of;

/// Rows newer than the runs, a persistent ordered map. `None`: the row is deleted.
pub type Delta = imbl::OrdMap<Bytes, Option<Bytes>>;

/// The largest row, key and value together, in bytes: a row and its page's header fit a page of
/// 64 KiB.
pub const ROW_BYTES_MAX: usize = 60 << 10;

/// What a row of a delta costs in memory beside its bytes: two handles, heads of allocations, its share of
/// tree nodes. Measured with three million rows of 54 bytes; drives when a checkpoint starts.
const DELTA_ROW_OVERHEAD_BYTES: usize = 176;

/// The rows of one state of the store.
#[derive(Clone, Debug)]
pub struct Layers {
    delta: Delta,
    delta_bytes: usize,
    frozen: Option<Frozen>,
    runs: Runs,
}

/// A delta that a checkpoint is writing as a run.
#[derive(Clone, Debug)]
struct Frozen {
    rows: Delta,
    bytes: usize,
}

impl Layers {
    /// The rows of `runs`, nothing newer.
    pub fn new(runs: Runs) -> Self {
        Self {
            delta: Delta::new(),
            delta_bytes: 0,
            frozen: None,
            runs,
        }
    }

    /// The value of `key`, copied out; `None` if there is no such row. [`crate::Error::NotResident`] if that needs the disk,
    /// [`crate::Error::Corrupt`] if the page that would hold it does not match its checksum.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(newest) = self.delta.get(key) {
            return Ok(newest.clone());
        }
        if let Some(frozen) = &self.frozen
            && let Some(newest) = frozen.rows.get(key)
        {
            return Ok(newest.clone());
        }
        self.runs.get(key)
    }

    /// The rows between two bounds, ascending, deletions hidden. A snapshot: later changes do not show.
    /// Nothing is read before the first row is asked for, then page by page.
    pub fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Scan {
        Scan::new(self.deltas(), self.runs.list(), (from, to), None)
    }

    fn deltas(&self) -> impl Iterator<Item = Delta> {
        let frozen = self.frozen.as_ref().map(|frozen| frozen.rows.clone());
        [Some(self.delta.clone()), frozen].into_iter().flatten()
    }

    /// The rows whose keys start with `prefix`, ascending, and lie strictly after the whole key `after`.
    pub fn scan_prefix(&self, prefix: &[u8], after: Option<&[u8]>) -> Scan {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let end = prefix_end(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let group = group_of(prefix).map(|group| self.runs.hash(group));
        Scan::new(self.deltas(), self.runs.list(), (from, to), group)
    }

    /// The rows whose keys start with `prefix` as they would be with `changes` on top.
    pub fn scan_prefix_under(&self, changes: Delta, prefix: &[u8]) -> Scan {
        let end = prefix_end(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let group = group_of(prefix).map(|group| self.runs.hash(group));
        let deltas = std::iter::once(changes).chain(self.deltas());
        let bounds = (Bound::Included(prefix), to);
        Scan::new(deltas, self.runs.list(), bounds, group)
    }

    /// Sets or (with `None`) deletes a row of the live delta. In place if no clone shares it.
    ///
    /// The bytes are kept as they are given: a small slice of a large buffer keeps all of that buffer.
    pub fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        let value_bytes = value.as_ref().map_or(0, Bytes::len);
        let row_bytes = key.len() + value_bytes;
        assert!(
            row_bytes <= ROW_BYTES_MAX,
            "a row of {row_bytes} bytes does not fit a page"
        );
        self.delta_bytes += value_bytes;
        let key_bytes = key.len();
        match self.delta.insert(key, value) {
            Some(old) => self.delta_bytes -= old.map_or(0, |old| old.len()),
            None => self.delta_bytes += key_bytes + DELTA_ROW_OVERHEAD_BYTES,
        }
    }

    /// Estimated memory of the live delta.
    pub fn delta_bytes(&self) -> usize {
        self.delta_bytes
    }

    /// Rows and deletions in the live delta.
    pub fn delta_rows(&self) -> usize {
        self.delta.len()
    }

    /// The same rows, with the live delta frozen and a new empty one on top. There must be none frozen.
    #[must_use]
    pub fn freeze(&self) -> Self {
        assert!(
            self.frozen.is_none(),
            "a delta is frozen already: one checkpoint at a time"
        );
        let frozen = Frozen {
            rows: self.delta.clone(),
            bytes: self.delta_bytes,
        };
        Self {
            delta: Delta::new(),
            delta_bytes: 0,
            frozen: Some(frozen),
            runs: self.runs.clone(),
        }
    }

    /// The frozen delta, while a checkpoint runs.
    pub fn frozen(&self) -> Option<&Delta> {
        self.frozen.as_ref().map(|frozen| &frozen.rows)
    }

    /// The same rows once `runs` hold what was frozen: the frozen delta goes, the live one stays.
    #[must_use]
    pub fn unfreeze(&self, runs: Runs) -> Self {
        assert!(
            self.frozen.is_some(),
            "only a frozen delta can have become a run"
        );
        Self {
            delta: self.delta.clone(),
            delta_bytes: self.delta_bytes,
            frozen: None,
            runs,
        }
    }

    /// The same rows after a checkpoint failed: what was frozen is live again, under what came since.
    #[must_use]
    pub fn thaw(&self) -> Self {
        let Some(frozen) = &self.frozen else {
            return self.clone();
        };
        let mut thawed = Self {
            delta: frozen.rows.clone(),
            delta_bytes: frozen.bytes,
            frozen: None,
            runs: self.runs.clone(),
        };
        for (key, value) in &self.delta {
            thawed.put(key.clone(), value.clone());
        }
        thawed
    }

    /// The same rows once `runs` hold those of the runs before, merged.
    #[must_use]
    pub fn with_runs(&self, runs: Runs) -> Self {
        Self {
            runs,
            ..self.clone()
        }
    }

    /// The rows on disk.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }
}

/// The first key after all keys that start with `prefix`; `None` if there is none.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn with(rows: &[&str]) -> Layers {
        let mut layers = Layers::new(Runs::empty());
        for row in rows {
            layers.put(bytes(row), Some(bytes(row)));
        }
        layers
    }

    fn keys(scan: Scan) -> Vec<String> {
        scan.map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap())
            .collect()
    }

    /// Guards: newest layer wins, in lookups and scans; a deletion hides what is below it.
    #[test]
    fn newer_layers_hide_older_ones() {
        let mut layers = with(&["a", "b", "c"]).freeze();
        layers.put(bytes("b"), None);
        layers.put(bytes("c"), Some(bytes("new")));
        layers.put(bytes("d"), Some(bytes("d")));
        assert_eq!(layers.get(b"a").unwrap(), Some(bytes("a")));
        assert_eq!(layers.get(b"b").unwrap(), None);
        assert_eq!(layers.get(b"c").unwrap(), Some(bytes("new")));
        assert_eq!(
            keys(layers.scan(Bound::Unbounded, Bound::Unbounded)),
            ["a", "c", "d"]
        );
        let thawed = layers.thaw();
        assert!(thawed.frozen().is_none());
        assert_eq!(
            keys(thawed.scan(Bound::Unbounded, Bound::Unbounded)),
            ["a", "c", "d"]
        );
    }

    /// Guards: a clone is a snapshot, and so is a scan that has begun.
    #[test]
    fn clones_and_scans_do_not_see_later_changes() {
        let mut layers = with(&["a", "b"]);
        let old = layers.clone();
        let mut scan = layers.scan(Bound::Unbounded, Bound::Unbounded);
        assert!(scan.next().is_some());
        layers.put(bytes("b"), None);
        layers.put(bytes("c"), Some(bytes("c")));
        assert_eq!(keys(scan), ["b"]);
        assert_eq!(old.get(b"b").unwrap(), Some(bytes("b")));
        assert_eq!(layers.get(b"b").unwrap(), None);
    }

    /// Guards: a prefix ends where its last byte counts up, also at 0xff; `after` is exclusive.
    #[test]
    fn prefix_scans_stay_inside_their_prefix() {
        assert_eq!(prefix_end(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        let layers = with(&["a", "ba", "bb", "bc", "c"]);
        assert_eq!(keys(layers.scan_prefix(b"b", None)), ["ba", "bb", "bc"]);
        assert_eq!(keys(layers.scan_prefix(b"b", Some(b"bb"))), ["bc"]);
        assert_eq!(
            keys(layers.scan_prefix(b"b", Some(b"a"))),
            ["ba", "bb", "bc"]
        );
        assert!(keys(layers.scan_prefix(b"b", Some(b"c"))).is_empty());
        assert_eq!(keys(layers.scan_prefix(b"", None)).len(), 5);
    }

    /// Guards: the estimate that starts checkpoints returns to where it was when rows are replaced.
    #[test]
    fn delta_bytes_follow_replacements() {
        let mut layers = with(&["abc"]);
        let one = layers.delta_bytes();
        layers.put(bytes("abc"), Some(bytes("longer value")));
        layers.put(bytes("abc"), Some(bytes("abc")));
        assert_eq!(layers.delta_bytes(), one);
        layers.put(bytes("abc"), None);
        assert_eq!(layers.delta_bytes(), one - 3);
        assert_eq!(layers.delta_rows(), 1);
    }
}
