//! The two changes of the runs: a delta becomes the newest run, and neighbouring runs become one.
//!
//! Owns: [`NewRuns`], the list that a checkpoint makes durable. Refuses: choosing runs (`tiers`) and publishing
//! (`checkpoint`).

use std::ops::Range;
use std::sync::Arc;

use super::run::Run;
use super::scan::Scan;
use super::write::{Input, NewRun, write};
use super::{Delta, Runs, TableContext};
use crate::error::Result;
use crate::format::checkpoint::RunRef;

/// A list of runs that no checkpoint names yet: existing runs, and at most one new one.
#[derive(Debug)]
pub(crate) struct NewRuns {
    list: Vec<Arc<Run>>,
    new: Option<NewRun>,
}

impl NewRuns {
    /// Returns the references of the runs, newest first.
    pub(crate) fn references(&self) -> Vec<RunRef> {
        self.list.iter().map(|run| run.reference()).collect()
    }

    /// Returns the size of the new run in bytes.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.new.as_ref().map_or(0, |new| new.reference().bytes)
    }

    /// Keeps the new file, after a checkpoint names it.
    pub(crate) fn keep(self, context: &TableContext) -> Runs {
        if let Some(new) = self.new {
            new.keep();
        }
        Runs::of(context, self.list)
    }
}

/// Neighbouring runs written as one, which replaces them.
#[derive(Debug)]
pub(crate) struct MergedRuns {
    /// The runs that were read.
    old: Vec<Arc<Run>>,
    new: Option<NewRun>,
}

/// Writes the rows of `frozen` as the newest run over `runs`.
pub(crate) async fn flush(context: &TableContext, runs: &Runs, frozen: &Delta) -> Result<NewRuns> {
    let input = Input {
        rows: Scan::of_delta(frozen.clone()),
        filter_keys: frozen.len() as u64,
        older: runs.clone(),
    };
    let new = write(context, input).await?;
    let newest = new.iter().map(NewRun::run).cloned();
    let list = newest.chain(runs.list().iter().cloned()).collect();
    Ok(NewRuns { list, new })
}

/// Writes the runs of `range`, a range of the list, as one.
pub(crate) async fn merge(
    context: &TableContext,
    runs: &Runs,
    range: Range<usize>,
) -> Result<MergedRuns> {
    let older = runs.list().get(range.end..).unwrap_or_default();
    let older = Runs::of(context, older.iter().cloned());
    let old = runs.list().get(range).unwrap_or_default().to_vec();
    let input = Input {
        rows: Scan::for_merge(&old),
        filter_keys: old.iter().map(|run| run.header.filter_keys).sum(),
        older,
    };
    let new = write(context, input).await?;
    Ok(MergedRuns { old, new })
}

impl MergedRuns {
    /// Returns the list `runs` with the merged run in place of those it was made of.
    ///
    /// # Panics
    /// If these are not in the list. Only newer runs may have been added since.
    pub(crate) fn over(self, runs: &Runs) -> NewRuns {
        let is_old = |run: &Arc<Run>| self.old.iter().any(|old| Arc::ptr_eq(old, run));
        let count = runs.list().iter().filter(|run| is_old(run)).count();
        assert!(count == self.old.len(), "merged runs are not in the list");
        let newer = runs.list().iter().take_while(|run| !is_old(run));
        let merged = self.new.iter().map(NewRun::run);
        let rest = runs.list().iter().skip_while(|run| !is_old(run));
        let older = rest.skip(count);
        let list = newer.chain(merged).chain(older).cloned().collect();
        NewRuns {
            list,
            new: self.new,
        }
    }
}

impl Runs {
    /// Returns the runs to merge next, if any.
    pub(crate) fn due(&self, context: &TableContext) -> Option<Range<usize>> {
        let runs = self.list().iter();
        let sizes: Vec<u64> = runs.map(|run| run.reference().bytes).collect();
        context.tiers.due(&sizes)
    }
}
