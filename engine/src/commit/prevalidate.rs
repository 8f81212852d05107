//! Judging preconditions before it is a batch's turn.
//!
//! Owns: [`Prevalidated`]: preconditions that held a moment ago and hold still unless something was taken away since. A manifest may have
//! tens of thousands of them, and judging them in turn would make every other commit wait.
//! Refuses: deciding; the sequencer takes it as judged only while nothing was removed, and judges anew otherwise.
//!
//! Invariant: only facts that nothing but a removal can end are prevalidated.

use crate::catalog::View;
use crate::error::Result;
use crate::finished_blob::FinishedBlob;
use crate::format::transaction::Operation;
use crate::io::Env;
use crate::table::resident_off_worker;
use crate::vocabulary::{Batch, Require};

/// A batch of no more preconditions is judged in its turn: cheaper than the way to another thread.
pub(crate) const JUDGED_IN_TURN: usize = 256;
/// As many are one computation: between two of them, others have their turn.
const JUDGED_AT_ONCE: usize = 1024;

/// How preconditions were judged when there had been `removals` removals.
#[derive(Debug)]
pub(crate) struct Prevalidated {
    pub(super) removals: u64,
    /// These held.
    pub(super) requires: Vec<Require>,
    /// These did not: the batch is refused in its turn, when what that is founded on is durable.
    pub(super) unmet: Vec<Require>,
}

/// Judges a large batch's preconditions off the async workers and takes those out that were. `head` gives the state with everything
/// queued, and the number of removals before it.
pub(crate) async fn prevalidate(
    env: &Env,
    batch: &mut Batch<FinishedBlob>,
    head: impl FnOnce() -> (View, u64),
) -> Result<Option<Prevalidated>> {
    if batch.requires.len() <= JUDGED_IN_TURN {
        return Ok(None);
    }
    let (lasting, rest) = std::mem::take(&mut batch.requires)
        .into_iter()
        .partition::<Vec<_>, _>(lasts);
    batch.requires = rest;
    let (view, removals) = head();
    let (mut requires, mut unmet) = (Vec::with_capacity(lasting.len()), Vec::new());
    let mut lasting = lasting.into_iter();
    loop {
        let piece: Vec<Require> = lasting.by_ref().take(JUDGED_AT_ONCE).collect();
        if piece.is_empty() {
            break;
        }
        let (view, repository) = (view.clone(), batch.repository.clone());
        let judge = move || judge(&view, &repository, &piece);
        let (held, failed) = resident_off_worker(env, judge).await?;
        requires.extend(held);
        unmet.extend(failed);
    }
    Ok(Some(Prevalidated {
        removals,
        requires,
        unmet,
    }))
}

/// Those that hold, and those that do not.
fn judge(
    view: &View,
    repository: &str,
    requires: &[Require],
) -> Result<(Vec<Require>, Vec<Require>)> {
    let (mut met, mut unmet) = (Vec::with_capacity(requires.len()), Vec::new());
    let repository = view.repository(repository)?;
    for require in requires {
        if view.holds(repository, require)? {
            met.push(require.clone());
        } else {
            unmet.push(require.clone());
        }
    }
    Ok((met, unmet))
}

/// Whether only a removal ends it.
fn lasts(require: &Require) -> bool {
    match require {
        Require::Repository
        | Require::Linked(_)
        | Require::LinkedIn { .. }
        | Require::Manifest(_)
        | Require::Stored(_) => true,
        Require::Attributes { .. } | Require::Tag { .. } | Require::TagExists(_) => false,
    }
}

/// Whether an operation may end what [`lasts`]. Everything that is not known to add only does.
pub(super) fn removes(operation: &Operation) -> bool {
    !matches!(
        operation,
        Operation::CreateRepository { .. }
            | Operation::Link { .. }
            | Operation::PutManifest { .. }
            | Operation::PlaceBlob { .. }
            | Operation::SetTag { .. }
            | Operation::DeleteTag { .. }
            | Operation::DropEdges { .. }
            | Operation::ForgetManifest { .. }
            | Operation::ReserveSegmentIds { .. }
            | Operation::MarkDamaged { .. }
            | Operation::MarkWhole { .. }
    )
}
