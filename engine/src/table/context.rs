//! The context of the table's files: where they are, and how they are written.
//!
//! Owns: [`TableContext`]: the store's directory and identity, the numbers of run files, the page cache, the sizes of
//! pages and tiers, and [`RunDamage`], the first damage that was found in a run.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::page_cache::PageCache;
use super::tiers::Tiers;
use crate::error::Corruption;
use crate::format::row::table;
use crate::format::run::PAGE_BYTES_MAX;
use crate::format::superblock::Superblock;
use crate::io::Env;
use crate::poison::Poison;
use crate::sync::{AtomicU64, Mutex};

/// Tables of which a request reads single rows, or the few rows of one digest.
const LOOKED_UP: [u8; 7] = [
    table::BLOB,
    table::LINK,
    table::HOLDER,
    table::MANIFEST,
    table::MANIFEST_HOLDER,
    table::PARENT,
    table::TAG,
];

/// Target sizes of pages in bytes, by the table of their rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageSizes {
    /// Pages of rows that are looked up one at a time.
    pub lookup_bytes: usize,
    /// Pages of rows that are mostly scanned.
    pub scan_bytes: usize,
}

impl Default for PageSizes {
    fn default() -> Self {
        Self {
            lookup_bytes: 4 << 10,
            scan_bytes: 16 << 10,
        }
    }
}

impl PageSizes {
    /// Returns the target size of the pages of a table. A larger row has a page of its own.
    pub(crate) fn of(self, table: u8) -> usize {
        let wanted = if LOOKED_UP.contains(&table) {
            self.lookup_bytes
        } else {
            self.scan_bytes
        };
        wanted.min(PAGE_BYTES_MAX / 2)
    }
}

/// What every operation on run files and checkpoints of a store needs.
#[derive(Debug)]
pub(crate) struct TableContext {
    /// Disk, clock, tasks and randomness.
    pub env: Env,
    /// The store's directory; run files are in `runs/` inside it.
    pub root: PathBuf,
    /// The store's id.
    pub store_id: [u8; 16],
    /// Secret key of the hashes in filters, from the superblock.
    pub hash_key: [u8; 16],
    /// Stops writes to the store after a failed sync of a directory.
    pub poison: Arc<Poison>,
    /// When runs are merged.
    pub tiers: Tiers,
    /// How files are cut into pages.
    pub pages: PageSizes,
    /// Pages in memory.
    pub cache: Arc<PageCache>,
    /// Damage of runs in use.
    pub damage: Arc<RunDamage>,
    // Numbers of new run files that no checkpoint names yet.
    claimed: Arc<Mutex<HashSet<u64>>>,
    // Grows with every attempt: the file of a failed attempt may be removed later, and must not be one that is in use.
    next_file: AtomicU64,
}

impl TableContext {
    /// Creates the context with the default sizes; tests set smaller ones.
    pub(crate) fn new(env: Env, root: &Path, superblock: &Superblock) -> Self {
        Self {
            env,
            root: root.to_path_buf(),
            store_id: superblock.store_id,
            hash_key: superblock.hash_key,
            poison: Arc::default(),
            tiers: Tiers::default(),
            pages: PageSizes::default(),
            cache: Arc::default(),
            damage: Arc::default(),
            claimed: Arc::default(),
            next_file: AtomicU64::new(0),
        }
    }

    /// Returns the directory of the run files.
    pub(crate) fn runs_dir(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Returns the first number of a run file that was not given out.
    pub(crate) fn next_file(&self) -> u64 {
        self.next_file.load(Ordering::Relaxed)
    }

    /// Reserves a number for a new run file.
    pub(super) fn claim_file(&self) -> Claim {
        let id = self.next_file.fetch_add(1, Ordering::Relaxed);
        self.claimed.lock().insert(id);
        let claimed = Arc::clone(&self.claimed);
        Claim { id, claimed }
    }

    /// Whether a file is being written, or is written and not named yet. Such a file must not be removed, although no
    /// checkpoint names it.
    pub(crate) fn is_claimed(&self, id: u64) -> bool {
        self.claimed.lock().contains(&id)
    }

    /// Raises the next number to at least `floor`.
    pub(crate) fn raise_next_file(&self, floor: u64) {
        self.next_file.fetch_max(floor, Ordering::Relaxed);
    }
}

/// The first damage that was found in a run while it was in use, if there was any. Then the stop is not clean, so that
/// the next open checks all runs and rebuilds what is damaged.
#[derive(Debug, Default)]
pub(crate) struct RunDamage(Mutex<Option<Corruption>>);

impl RunDamage {
    /// Records damage.
    pub(super) fn record(&self, found: Corruption) {
        self.0.lock().get_or_insert(found);
    }

    /// Returns the damage, if there was any.
    pub(crate) fn found(&self) -> Option<Corruption> {
        self.0.lock().clone()
    }

    /// Returns the damage and forgets it, because all runs are opened again.
    pub(crate) fn take(&self) -> Option<Corruption> {
        self.0.lock().take()
    }
}

/// The reserved number of a run file, until a checkpoint names the file. Released when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    id: u64,
    claimed: Arc<Mutex<HashSet<u64>>>,
}

impl Claim {
    /// Returns the number.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claimed.lock().remove(&self.id);
    }
}
