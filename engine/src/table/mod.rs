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
#[cfg(test)]
mod tests;
mod tiers;
mod write;

use std::ops::Bound;

use bytes::Bytes;

pub(crate) use change::{NewRuns, flush, merge};
pub(crate) use resident::{resident, resident_off_worker};
pub(crate) use run::{file_id, file_name};
pub(crate) use runs::Runs;
pub(crate) use scan::Scan;
pub(crate) use site::Site;

use crate::error::Result;
use crate::format::row::group_of;

/// Rows newer than the runs, a persistent ordered map. `None`: the row is deleted.
pub(crate) type Delta = imbl::OrdMap<Bytes, Option<Bytes>>;

/// The largest row, key and value together, in bytes: a row and its page's header fit a page of
/// 64 KiB.
pub(crate) const ROW_BYTES_MAX: usize = 60 << 10;

/// What a row of a delta costs in memory beside its bytes: two handles, heads of allocations, its share of
/// tree nodes. Measured with three million rows of 54 bytes; drives when a checkpoint starts.
const DELTA_ROW_OVERHEAD_BYTES: usize = 176;

/// The rows of one state of the store.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    delta: Delta,
    delta_bytes: usize,
    /// A delta that a checkpoint is writing as a run.
    frozen: Option<Delta>,
    runs: Runs,
}

impl Layers {
    /// The rows of `runs`, nothing newer.
    pub(crate) fn new(runs: Runs) -> Self {
        Self {
            delta: Delta::new(),
            delta_bytes: 0,
            frozen: None,
            runs,
        }
    }

    /// The value of `key`, copied out; `None` if there is no such row. [`crate::Error::NotResident`] if that needs the disk,
    /// [`crate::Error::Corrupt`] if the page that would hold it does not match its checksum.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(newest) = self.delta.get(key) {
            return Ok(newest.clone());
        }
        if let Some(frozen) = &self.frozen
            && let Some(newest) = frozen.get(key)
        {
            return Ok(newest.clone());
        }
        self.runs.get(key)
    }

    fn deltas(&self) -> impl Iterator<Item = Delta> {
        [Some(self.delta.clone()), self.frozen.clone()]
            .into_iter()
            .flatten()
    }

    /// The rows whose keys start with `prefix`, ascending, deletions hidden, and lie strictly after the whole key `after`. A snapshot:
    /// later changes do not show. Nothing is read before the first row is asked for, then page by page.
    pub(crate) fn scan_prefix(&self, prefix: &[u8], after: Option<&[u8]>) -> Scan {
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
    pub(crate) fn scan_prefix_under(&self, changes: Delta, prefix: &[u8]) -> Scan {
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
    pub(crate) fn put(&mut self, key: Bytes, value: Option<Bytes>) {
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
    pub(crate) fn delta_bytes(&self) -> usize {
        self.delta_bytes
    }

    /// The same rows, with the live delta frozen and a new empty one on top. There must be none frozen.
    #[must_use]
    pub(crate) fn freeze(&self) -> Self {
        assert!(
            self.frozen.is_none(),
            "a delta is frozen already: one checkpoint at a time"
        );
        Self {
            delta: Delta::new(),
            delta_bytes: 0,
            frozen: Some(self.delta.clone()),
            runs: self.runs.clone(),
        }
    }

    /// The frozen delta, while a checkpoint runs.
    pub(crate) fn frozen(&self) -> Option<&Delta> {
        self.frozen.as_ref()
    }

    /// The same rows once `runs` hold what was frozen: the frozen delta goes, the live one stays.
    #[must_use]
    pub(crate) fn unfreeze(&self, runs: Runs) -> Self {
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

    /// The same rows once `runs` hold those of the runs before, merged.
    #[must_use]
    pub(crate) fn with_runs(&self, runs: Runs) -> Self {
        Self {
            runs,
            ..self.clone()
        }
    }

    /// The rows on disk.
    pub(crate) fn runs(&self) -> &Runs {
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
