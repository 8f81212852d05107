//! The rows on disk: all runs of one checkpoint.
//!
//! Owns: [`Runs`], an immutable list of open runs, newest first. Refuses: changes; a checkpoint or a merge creates a
//! new list.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::context::TableContext;
use super::filter::KeyHash;
use super::open::{self, RunCheck};
use super::run::{Lookup, Run, RunPart, UnusableRun};
use crate::error::Result;
use crate::format::checkpoint::RunRef;
use crate::format::row::filter_key;

/// Runs that are opened at the same time.
const OPEN_AT_ONCE: usize = 4;

/// The list of runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs {
    /// Newest first: where two have a row of the same key, the newer one counts.
    list: Arc<[Arc<Run>]>,
    hash_key: [u8; 16],
}

impl Runs {
    /// Creates an empty list: for a new store, or one whose run files are gone.
    pub(crate) fn empty() -> Self {
        Self::default()
    }

    /// Opens the files that a checkpoint names.
    pub(crate) async fn open(
        context: &TableContext,
        references: &[RunRef],
        when: RunCheck,
    ) -> std::result::Result<Self, UnusableRun> {
        let opening = references.iter().map(|run| open::open(context, run, when));
        // Collected, because the compiler cannot prove that a future with the closure above is `Send`.
        let opening: Vec<_> = opening.collect();
        let runs: Vec<Run> = stream::iter(opening)
            .buffered(OPEN_AT_ONCE)
            .try_collect()
            .await?;
        Ok(Self::of(context, runs.into_iter().map(Arc::new)))
    }

    pub(super) fn of(context: &TableContext, runs: impl IntoIterator<Item = Arc<Run>>) -> Self {
        Self {
            list: runs.into_iter().collect(),
            hash_key: context.hash_key,
        }
    }

    pub(super) fn list(&self) -> &[Arc<Run>] {
        &self.list
    }

    /// Returns a run of which this part has to be checked, the newest first.
    pub(crate) fn unchecked(&self, part: RunPart) -> Option<Arc<Run>> {
        let run = self.list.iter().find(|run| run.is_unchecked(part));
        run.cloned()
    }

    /// Returns the number of runs that have to be checked.
    pub(crate) fn count_unchecked(&self) -> usize {
        let is_unchecked =
            |run: &&Arc<Run>| run.is_unchecked(RunPart::Filter) || run.is_unchecked(RunPart::Pages);
        self.list.iter().filter(is_unchecked).count()
    }

    /// Returns the references by which a checkpoint names the files, newest first.
    pub(crate) fn references(&self) -> Vec<RunRef> {
        self.list.iter().map(|run| run.reference()).collect()
    }

    /// Returns the number of runs.
    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    /// Returns the size of all files in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.list.iter().map(|run| run.reference().bytes).sum()
    }

    /// Returns the value of `key` in the newest run that has a row of it.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if self.list.is_empty() {
            return Ok(None);
        }
        let hash = self.hash(filter_key(key));
        for run in self.list.iter() {
            match run.get(key, hash)? {
                Lookup::NotFound => {}
                Lookup::Deleted => return Ok(None),
                Lookup::Value(value) => return Ok(Some(value)),
            }
        }
        Ok(None)
    }

    /// Returns whether a run may have a row of this key.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        let hash = self.hash(filter_key(key));
        self.list().iter().any(|run| run.may_have(hash))
    }

    /// Returns the hash of a filter key.
    pub(super) fn hash(&self, filter_key: &[u8]) -> KeyHash {
        KeyHash::new(&self.hash_key, filter_key)
    }
}
