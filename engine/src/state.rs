//! A state of the store: the result of all transactions up to one LSN.
//!
//! Owns: [`State`], which is cheap to clone; changing a clone leaves the others as they are. [`Draft`] collects the
//! changes of a transaction before any of them is part of a state. Refuses: knowing what rows mean (`catalog`).

use bytes::Bytes;

use crate::error::Result;
use crate::extent::{Lsn, SegmentId};
use crate::table::{Delta, Layers, Runs, Scan};

/// The rows and counters at one LSN.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Last transaction that is part of it.
    pub lsn: Lsn,
    /// The rows.
    pub layers: Layers,
    /// The next repository id; ids are never reused.
    pub next_repository: u64,
    /// First segment id that was never in use.
    pub segment_limit: SegmentId,
    /// Number of deleted manifests of which rows remain. It is mostly 0, and then lookups skip the marks.
    pub retired: u64,
    /// Secret key of the index's hash, from the superblock.
    pub hash_key: [u8; 16],
}

impl State {
    /// Returns the state of a store without transactions.
    pub(crate) fn empty(hash_key: [u8; 16]) -> Self {
        Self {
            lsn: Lsn(0),
            layers: Layers::new(Runs::empty()),
            next_repository: 1,
            segment_limit: SegmentId(1),
            retired: 0,
            hash_key,
        }
    }

    /// Returns the value of a row.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.layers.get(key)
    }

    /// Returns the rows whose key starts with `prefix`, strictly after `after`, in order.
    pub(crate) fn scan_prefix(&self, prefix: &[u8], after: Option<&[u8]>) -> Scan {
        self.layers.scan_prefix(prefix, after)
    }

    /// Applies all changes that were drafted on top of this state.
    pub(crate) fn apply(&mut self, changes: Changes) {
        for (key, value) in changes.rows {
            self.layers.put(key, value);
        }
        self.lsn = changes.lsn;
        self.next_repository = changes.next_repository;
        self.segment_limit = changes.segment_limit;
        self.retired = changes.retired;
    }
}

/// Rows and counters that become part of a state together or not at all.
#[derive(Debug)]
pub(crate) struct Changes {
    rows: Delta,
    /// As in [`State`].
    pub lsn: Lsn,
    /// As in [`State`].
    pub next_repository: u64,
    /// As in [`State`].
    pub segment_limit: SegmentId,
    /// As in [`State`].
    pub retired: u64,
    /// Segments that lost a live blob.
    pub shrunk: Vec<SegmentId>,
}

/// Changes that are being collected on top of a state. The state stays as it is, because reading a row may fail in the
/// middle of them.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    state: &'a State,
    /// The changes so far.
    pub changes: Changes,
}

impl<'a> Draft<'a> {
    /// Starts without changes.
    pub(crate) fn of(state: &'a State) -> Self {
        let changes = Changes {
            rows: Delta::new(),
            lsn: state.lsn,
            next_repository: state.next_repository,
            segment_limit: state.segment_limit,
            retired: state.retired,
            shrunk: Vec::new(),
        };
        Self { state, changes }
    }

    /// Returns the value of a row, changes included.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.changes.rows.get(key) {
            Some(newest) => Ok(newest.clone()),
            None => self.state.get(key),
        }
    }

    /// Returns the rows whose key starts with `prefix`, strictly after `after`, in order, changes included.
    pub(crate) fn scan_prefix(&self, prefix: &[u8], after: Option<&[u8]>) -> Scan {
        let changes = self.changes.rows.clone();
        self.state.layers.scan_prefix_under(changes, prefix, after)
    }

    /// Returns the secret key of the index's hash.
    pub(crate) fn hash_key(&self) -> &[u8; 16] {
        &self.state.hash_key
    }

    /// Sets a row.
    pub(crate) fn put(&mut self, key: Bytes, value: Bytes) {
        self.changes.rows.insert(key, Some(value));
    }

    /// Deletes a row.
    pub(crate) fn delete(&mut self, key: Bytes) {
        self.changes.rows.insert(key, None);
    }
}
