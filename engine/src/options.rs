//! The options of an open store, with the unit in the name, validated once when the store opens.
//!
//! Owns: [`Options`] and their bounds. Refuses: options that change a format; the superblock has those.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{
    CHUNK_BYTES, JOURNAL_FILE_BYTES_MAX, LEADING_PAYLOAD_BYTES_MAX, READ_BUDGET_BYTES_MIN,
};

/// How a store behaves. The defaults suit a server with a few GiB of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Blobs below this go into shared segments; larger ones stream into a segment of their own.
    pub spill_threshold_bytes: u64,
    /// Memory for the bytes of all unfinished uploads together, in bytes. When it is used up, uploads spill to disk
    /// earlier. The last quarter is for small ones, and one client never gets more than is left to others.
    pub staging_budget_bytes: usize,
    /// Memory for reads that are being sent to clients, in bytes.
    pub read_budget_bytes: usize,
    /// Memory that the kernel's page cache may have, in bytes: what is read of blobs longer than a quarter of it stays
    /// there only if it is read again. Without limit by default.
    pub page_cache_bytes: u64,
    /// Time after which the answer to a client that reads nothing is aborted, while others wait for its memory.
    pub read_stall: Duration,
    /// Size in bytes at which a shared segment is sealed and the next one begun.
    pub shared_segment_bytes: u64,
    /// Bytes between two upload checkpoints: the most that a crash costs an upload.
    pub upload_checkpoint_bytes: u64,
    /// Most bytes of one upload that may be unsynced before its sender is slowed down.
    pub unsynced_bytes_max: u64,
    /// Unit in which uploads are hashed and written.
    pub upload_window_bytes: usize,
    /// Most files of blobs open at once: segments that are read, written or cached for the next reader, and logs of
    /// uploads. Reads use at most three quarters of them. Uploads use at most three quarters too, and at most half for
    /// segments that they write.
    pub open_files_max: usize,
    /// Most unfinished uploads at once; beyond it, idle ones are dropped.
    pub uploads_max: usize,
    /// Idle time after which an unfinished upload is dropped.
    pub upload_ttl: Duration,
    /// Time for which content that nothing references is kept: after an answer promised it, and after its last
    /// reference was removed.
    pub collection_grace: Duration,
    /// Which repositories remove untagged manifests, and after how long.
    pub untagged: UntaggedPolicy,
    /// Whether only [`crate::Store::collect`] collects garbage. Otherwise the store does it by itself, too.
    pub collection_manual: bool,
    /// Bytes in a second that the store reads to find damage, without being asked; 0 for none.
    pub scrub_bytes_per_second: u64,
    /// Time from the begin of one such pass to that of the next.
    pub scrub_every: Duration,
    /// Time from the begin of one pass that computes digests, too, to that of the next.
    pub scrub_digests_every: Duration,
    /// Bytes per second that compaction reads and writes, in the background; 0 compacts only on request.
    pub compaction_rate_bytes: u64,
    /// Memory for rows of index and catalog that no checkpoint holds yet, in bytes. A checkpoint starts when it is used
    /// up.
    pub delta_budget_bytes: usize,
    /// Size of a journal file in bytes.
    pub journal_file_bytes: u64,
    /// Free space that uploads must leave, in bytes: below it, their bytes are refused. 0 refuses none. `None` is a
    /// twentieth of the file system, at most 1 GiB.
    pub free_space_min_bytes: Option<u64>,
    /// Space reserved so that deletes can be journalled on a full disk, in bytes; 0 reserves none.
    pub reserve_bytes: u64,
}

/// Which repositories remove untagged manifests. The default is none.
#[derive(Clone, Default)]
pub struct UntaggedPolicy(Option<Arc<Rule>>);

/// Returns after how long a repository of that name removes untagged manifests.
type Rule = dyn Fn(&str) -> Option<Duration> + Send + Sync;

impl UntaggedPolicy {
    /// Creates a policy from a rule: from a repository's name to how long an untagged manifest stays, or `None` for
    /// ever. Grace is the minimum.
    pub fn new(rule: impl Fn(&str) -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(rule)))
    }

    /// Returns after how long a repository removes untagged manifests; `None` if it keeps them.
    pub fn removes_after(&self, repository: &str) -> Option<Duration> {
        self.0.as_ref().and_then(|rule| rule(repository))
    }

    /// Returns whether every repository keeps untagged manifests.
    pub(crate) fn keeps_all(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for UntaggedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.keeps_all() { "keep" } else { "by name" })
    }
}

/// Policies are equal if they are clones of one.
impl PartialEq for UntaggedPolicy {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

impl Eq for UntaggedPolicy {}

/// Descriptors that an open store needs beside those of [`Options::open_files_max`].
///
/// They are: lock and superblock, three directories, three files of the journal, six shared segments (three being
/// closed), two that are compacted or scrubbed, the runs and two that are being written, two files of a checkpoint,
/// each ring and its eventfd. For a moment also one for each thread that examines names (8) or works in the background
/// (4).
pub const DESCRIPTORS_BESIDE_BLOBS: usize =
    2 + 3 + 3 + 6 + 2 + (RUNS_MAX + 2) + 2 + RINGS_MAX * 2 + 8 + 4;

/// Number of runs beyond which commits wait for a running merge. Each run costs a lookup a probe of its filter, and a
/// descriptor.
pub(crate) const RUNS_MAX: usize = 64;

/// Most rings of `io_uring`. Each has a thread; what the page cache has is copied by it.
pub(crate) const RINGS_MAX: usize = 4;

impl Default for Options {
    fn default() -> Self {
        Self {
            spill_threshold_bytes: 8 << 20,
            staging_budget_bytes: 64 << 20,
            read_budget_bytes: 64 << 20,
            page_cache_bytes: u64::MAX,
            read_stall: Duration::from_secs(2),
            shared_segment_bytes: 256 << 20,
            upload_checkpoint_bytes: 64 << 20,
            unsynced_bytes_max: 64 << 20,
            upload_window_bytes: 1 << 20,
            open_files_max: 8192,
            uploads_max: 10_000,
            upload_ttl: Duration::from_hours(24),
            collection_grace: Duration::from_hours(1),
            untagged: UntaggedPolicy::default(),
            collection_manual: false,
            scrub_bytes_per_second: 16 << 20,
            scrub_every: Duration::from_hours(24),
            scrub_digests_every: Duration::from_hours(30 * 24),
            compaction_rate_bytes: 64 << 20,
            delta_budget_bytes: 32 << 20,
            journal_file_bytes: 16 << 20,
            free_space_min_bytes: None,
            reserve_bytes: 32 << 20,
        }
    }
}

/// An option out of its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} is {value}; it must be {rule}")]
pub struct BadOption {
    /// The option's name.
    pub option: &'static str,
    /// What was given.
    pub value: u64,
    /// What is allowed.
    pub rule: String,
}

impl Options {
    /// Checks every bound.
    ///
    /// # Errors
    /// All options that are out of their bounds.
    pub fn validate(&self) -> Result<(), Vec<BadOption>> {
        let chunk = CHUNK_BYTES as u64;
        let window = self.upload_window_bytes as u64;
        let bounds = [
            (
                "spill_threshold_bytes",
                self.spill_threshold_bytes,
                chunk,
                (self.shared_segment_bytes / 2).min(LEADING_PAYLOAD_BYTES_MAX),
            ),
            (
                "staging_budget_bytes",
                self.staging_budget_bytes as u64,
                1 << 20,
                1 << 40,
            ),
            (
                "read_budget_bytes",
                self.read_budget_bytes as u64,
                READ_BUDGET_BYTES_MIN as u64,
                1 << 40,
            ),
            (
                "shared_segment_bytes",
                self.shared_segment_bytes,
                1 << 20,
                1 << 40,
            ),
            (
                "upload_checkpoint_bytes",
                self.upload_checkpoint_bytes,
                window,
                1 << 40,
            ),
            (
                "unsynced_bytes_max",
                self.unsynced_bytes_max,
                2 * window,
                1 << 40,
            ),
            ("upload_window_bytes", window, chunk, 64 << 20),
            ("open_files_max", self.open_files_max as u64, 8, 1 << 20),
            (
                "delta_budget_bytes",
                self.delta_budget_bytes as u64,
                64 << 10,
                1 << 36,
            ),
            (
                "journal_file_bytes",
                self.journal_file_bytes,
                32 << 10,
                JOURNAL_FILE_BYTES_MAX,
            ),
            ("uploads_max", self.uploads_max as u64, 1, 1 << 24),
        ];
        let bad: Vec<BadOption> = bounds
            .into_iter()
            .filter(|(_, value, low, high)| value < low || value > high)
            .map(|(option, value, low, high)| BadOption {
                option,
                value,
                rule: format!("between {low} and {high}"),
            })
            .collect();
        if bad.is_empty() { Ok(()) } else { Err(bad) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the defaults are valid, and every broken bound is named.
    #[test]
    fn bounds_are_checked_together() {
        Options::default().validate().unwrap();
        let bad = Options {
            open_files_max: 0,
            uploads_max: 0,
            ..Options::default()
        };
        let named: Vec<_> = bad
            .validate()
            .unwrap_err()
            .into_iter()
            .map(|bad| bad.option)
            .collect();
        assert_eq!(named, ["open_files_max", "uploads_max"]);
    }
}
