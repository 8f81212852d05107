//! The rows on disk, as one ordered set.
//!
//! Owns: [`Base`], the list of mapped partitions in key order.
//! Refuses: changes; a checkpoint builds a new base from an old one.
//!
//! Invariant: partitions ascend and do not overlap; each answers for the keys from its first one up to the next
//! partition's first one.

use std::collections::VecDeque;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::partition::{Partition, Unusable};
use super::scan::{Bounds, Row};
use crate::error::Result;
use crate::format::checkpoint::PartitionRef;
use crate::io::Env;

/// Partitions mapped and checked at the same time while opening.
const OPEN_AT_ONCE: usize = 4;

/// Immutable rows on disk.
#[derive(Debug, Default)]
pub struct Base {
    partitions: Vec<Arc<Partition>>,
}

impl Base {
    /// No rows: a new store, or one whose base files are gone.
    pub fn empty() -> Arc<Self> {
        Arc::default()
    }

    /// Maps and checks the files that a checkpoint names, in `dir`.
    pub async fn open(
        env: &Env,
        dir: &Path,
        store_id: [u8; 16],
        references: &[PartitionRef],
    ) -> std::result::Result<Arc<Self>, Unusable> {
        let opening = references
            .iter()
            .map(|reference| Partition::open(env, dir, store_id, reference));
        let partitions: Vec<Partition> = stream::iter(opening)
            .buffered(OPEN_AT_ONCE)
            .try_collect()
            .await?;
        if let Some(pair) = partitions.windows(2).find(|pair| !ascends(pair)) {
            let path = dir.to_path_buf();
            return Err(Unusable {
                path,
                why: format!("partitions do not ascend: {pair:?}"),
                attempted: true,
            });
        }
        Ok(Self::of(partitions.into_iter().map(Arc::new).collect()))
    }

    /// A base of partitions that ascend.
    pub(super) fn of(partitions: Vec<Arc<Partition>>) -> Arc<Self> {
        Arc::new(Self { partitions })
    }

    pub(super) fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }

    /// How a checkpoint names the files, in key order.
    pub fn references(&self) -> Vec<PartitionRef> {
        self.partitions
            .iter()
            .map(|partition| partition.reference())
            .collect()
    }

    /// Rows in all partitions.
    pub fn rows(&self) -> u64 {
        self.partitions
            .iter()
            .map(|partition| partition.rows())
            .sum()
    }

    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.partitions
            .iter()
            .map(|partition| partition.bytes())
            .sum()
    }

    /// How often a page was looked into, over the partitions as they are now.
    pub fn page_touches(&self) -> u64 {
        self.partitions
            .iter()
            .map(|partition| partition.touches())
            .sum()
    }

    /// Memory for page directories and fingerprints, estimated.
    pub fn resident_bytes(&self) -> usize {
        self.partitions
            .iter()
            .map(|partition| partition.resident_bytes())
            .sum()
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let found = self
            .partition_of(key)
            .and_then(|number| self.partitions.get(number));
        found.map_or(Ok(None), |partition| partition.get(key))
    }

    /// Number of the partition that would hold `key`; `None` if it lies before all of them.
    fn partition_of(&self, key: &[u8]) -> Option<usize> {
        self.partitions
            .partition_point(|partition| partition.first_key() <= key)
            .checked_sub(1)
    }
}

fn ascends(pair: &[Partition]) -> bool {
    matches!(pair, [first, second] if first.first_key() < second.first_key())
}

/// The rows of the base between two bounds, a page at a time.
#[derive(Debug)]
pub(super) struct BaseRun {
    base: Arc<Base>,
    bounds: Bounds,
    // Partition and page to read next.
    place: (usize, usize),
    taken: VecDeque<Row>,
}

impl BaseRun {
    pub(super) fn new(base: Arc<Base>, bounds: Bounds) -> Self {
        let place = match &bounds.0 {
            Bound::Included(from) | Bound::Excluded(from) => {
                let partition = base.partition_of(from).unwrap_or_default();
                let found = base
                    .partitions
                    .get(partition)
                    .and_then(|found| found.page_of(from));
                (partition, found.unwrap_or_default())
            }
            Bound::Unbounded => (0, 0),
        };
        Self {
            base,
            bounds,
            place,
            taken: VecDeque::new(),
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>> {
        while self.taken.is_empty() {
            let (number, page) = self.place;
            let Some(partition) = self.base.partitions.get(number) else {
                return Ok(None);
            };
            let Some(first_key) = partition.page_key(page) else {
                self.place = (number + 1, 0);
                continue;
            };
            let behind = match &self.bounds.1 {
                Bound::Included(to) => first_key > to,
                Bound::Excluded(to) => first_key >= to,
                Bound::Unbounded => false,
            };
            if behind {
                return Ok(None);
            }
            partition.copy_page(page, &self.bounds, &mut self.taken)?;
            self.place = (number, page + 1);
        }
        Ok(self.taken.pop_front())
    }
}
