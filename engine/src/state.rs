//! A state of the store: everything the journal says, up to one LSN.
//!
//! Owns: [`State`], an immutable value once shared; cloning it is cheap, changing a clone leaves others as they are.
//! Refuses: knowing what rows mean (`catalog`).

use bytes::Bytes;

use crate::error::Result;
use crate::extent::{Lsn, SegmentId};
use crate::table::{Layers, Scan};

/// Rows and counters at one LSN.
#[derive(Debug, Clone)]
pub struct State {
    /// The last transaction that is part of it.
    pub lsn: Lsn,
    /// The rows.
    pub layers: Layers,
    /// The next repository id; ids are never reused.
    pub next_repository: u64,
    /// Segment ids from here on were never in use.
    pub segment_limit: SegmentId,
    /// Manifests that were deleted and of which rows remain: most of the time none, and then nobody looks for them.
    pub retired: u64,
    /// Secret key of the index's hash, from the superblock.
    pub hash_key: [u8; 16],
}

impl State {
    /// The value of a row.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.layers.get(key)
    }

    /// Rows whose key starts with `prefix`, strictly behind `after`, in order.
    pub fn scan_prefix(&self, prefix: &[u8], after: Option<&[u8]>) -> Scan {
        self.layers.scan_prefix(prefix, after)
    }

    /// Writes a row.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.layers.put(key, Some(value));
    }

    /// Removes a row.
    pub fn delete(&mut self, key: Bytes) {
        self.layers.put(key, None);
    }
}
