//! The ordered table of index and catalog: rows in layers, newest first.
//!
//! Owns: [`Layers`], the rows of one state of the store: a live delta, at most one frozen delta (while a checkpoint
//! runs) and the [`Runs`] on disk. A lookup reads them in that order. The policy (`tiers`) chooses the runs to merge;
//! `merge` and `write` merge them. Refuses: knowing what a row means. A key's first byte names its table; the rest
//! belongs to the catalog.
//!
//! Invariants: a clone never changes; clones share structure and cost O(1). A deletion is kept as long as an older run
//! exists that may have the row. Only opening, writing and [`resident()`] wait for the disk.

mod builder;
mod context;
mod cursor;
mod filter;
mod merge;
mod open;
mod page_cache;
mod resident;
mod run;
mod runs;
mod scan;
#[cfg(test)]
mod tests;
mod tiers;
mod write;

use std::ops::Bound;

use bytes::Bytes;

pub(crate) use context::TableContext;
pub(crate) use merge::{NewRuns, flush, merge};
pub(crate) use open::{RunCheck, check_in_use};
pub(crate) use resident::{resident, resident_off_worker};
pub(crate) use run::{RunPart, file_id, file_name};
pub(crate) use runs::Runs;
pub(crate) use scan::Scan;

use crate::error::Result;
use crate::format::row::group_of;

/// Rows newer than the runs, in a persistent ordered map. `None` is a deleted row.
pub(crate) type Delta = imbl::OrdMap<Bytes, Option<Bytes>>;

/// Largest row in bytes, key and value together: with its page's header it fits a page of 64 KiB.
pub(crate) const ROW_BYTES_MAX: usize = 60 << 10;

/// Memory that a row of a delta takes beyond its bytes: two handles, allocation headers, its share of tree nodes.
/// Measured with three million rows of 54 bytes. It decides when a checkpoint starts.
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
    /// Creates a table of the rows of `runs`, with an empty delta.
    pub(crate) fn new(runs: Runs) -> Self {
        Self {
            delta: Delta::new(),
            delta_bytes: 0,
            frozen: None,
            runs,
        }
    }

    /// Returns a copy of the value of `key`; `None` if there is no such row.
    ///
    /// # Errors
    /// [`crate::Error::NotResident`] if that needs the disk, [`crate::Error::Corrupt`] if the page does not match its
    /// checksum.
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

    /// Returns the rows whose keys start with `prefix`, ascending and without deleted ones, strictly after the whole
    /// key `after`.
    ///
    /// The scan is a snapshot: it does not see later changes. Pages are read one by one, as rows are taken.
    pub(crate) fn scan_prefix(&self, prefix: &[u8], after: Option<&[u8]>) -> Scan {
        self.scan_prefix_under(Delta::new(), prefix, after)
    }

    /// Does the same with `changes` as the newest layer.
    pub(crate) fn scan_prefix_under(
        &self,
        changes: Delta,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> Scan {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let end = prefix_end(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let group = group_of(prefix).map(|group| self.runs.hash(group));
        let deltas = std::iter::once(changes).chain(self.deltas());
        Scan::new(deltas, self.runs.list(), (from, to), group)
    }

    /// Sets or (with `None`) deletes a row of the live delta, in place if no clone shares it.
    ///
    /// The bytes are kept as given: a small slice of a large buffer keeps that whole buffer in memory.
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

    /// Returns the estimated memory of the live delta in bytes.
    pub(crate) fn delta_bytes(&self) -> usize {
        self.delta_bytes
    }

    /// Returns the same rows, with the live delta frozen and a new empty one.
    ///
    /// # Panics
    /// If a delta is frozen already.
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

    /// Returns the frozen delta, while a checkpoint runs.
    pub(crate) fn frozen(&self) -> Option<&Delta> {
        self.frozen.as_ref()
    }

    /// Returns the same rows after `runs` took up the frozen delta. The live delta stays.
    ///
    /// # Panics
    /// If no delta is frozen.
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

    /// Returns the same rows with `runs`, which hold those of the current runs, merged.
    #[must_use]
    pub(crate) fn with_runs(&self, runs: Runs) -> Self {
        Self {
            runs,
            ..self.clone()
        }
    }

    /// Returns the runs.
    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }
}

/// Returns the first key after all keys that start with `prefix`; `None` if there is none.
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
