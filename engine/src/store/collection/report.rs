//! What a cycle of collection is asked to do, and what it found and did.

use std::time::Duration;

use crate::digest::Digest;
use crate::extent::{Extent, Lsn};
use crate::store::compaction::CompactionReport;

/// What a cycle is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectionRequest {
    /// Finds what would be removed and removes nothing.
    pub dry_run: bool,
    /// Also compacts shared segments, until hardly any dead bytes are left.
    pub full: bool,
    /// Whether no server had the store open until now: then grace is counted by the wall clock.
    pub was_closed: bool,
    /// Most blobs, and most manifests, that the report names.
    pub list_max: usize,
}

/// What a cycle found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CollectionReport {
    /// Suspects that were looked at: blobs, and manifests of repositories.
    pub suspects: u64,
    /// Suspects that something references or keeps, or that are not stored.
    pub cleared: u64,
    /// Suspects whose grace is not over.
    pub in_grace: u64,
    /// Dead blobs and manifests that a lease or work in progress protects.
    pub leased: u64,
    /// Manifests that were removed from their repositories, or would be. Their blobs become suspects by that.
    pub manifests: u64,
    /// Blobs that were removed, or would be.
    pub blobs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Segments that were unlinked, without those that were compacted.
    pub segments: u64,
    /// What compaction did, or would do.
    pub compaction: CompactionReport,
    /// The last transaction that removed blobs.
    pub lsn: Option<Lsn>,
    /// The last transaction that removed manifests.
    pub manifests_lsn: Option<Lsn>,
    /// The first of the blobs, in the order of their digests.
    pub listed: Vec<CollectedBlob>,
    /// The first of the manifests.
    pub listed_manifests: Vec<CollectedManifest>,
}

/// A blob that was removed, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its payload bytes.
    pub bytes: u64,
}

/// A manifest that was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedManifest {
    /// The name of its repository.
    pub repository: String,
    /// Its digest.
    pub digest: Digest,
}

/// Totals of collection since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectionTotals {
    /// Manifests that were removed from their repositories.
    pub manifests: u64,
    /// Blobs that were removed.
    pub blobs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Segments that were unlinked.
    pub segments: u64,
    /// Suspects whose grace was over, so that they were looked up.
    pub candidates: u64,
    /// Time in ms from the loss of a last reference to the end of the cycle that removed the blob and unlinked its
    /// segment: the longest of the last such cycle.
    pub lag_last_ms: u64,
    /// The longest of all cycles.
    pub lag_max_ms: u64,
    /// Longest time for which collection or compaction held the lock under which commits are queued.
    pub lock_hold_max: Duration,
    /// Wall-clock time at which the last cycle ended without an error, in Unix ms; 0 before.
    pub last_success_unix_ms: u64,
}

impl CollectionReport {
    /// Counts a blob, and lists it if there is room.
    pub(super) fn add(&mut self, digest: Digest, extent: &Extent, list_max: usize) {
        self.blobs += 1;
        self.bytes += extent.length;
        if self.listed.len() < list_max {
            self.listed.push(CollectedBlob {
                digest,
                bytes: extent.length,
            });
        }
    }
}
