//! Checks of preconditions before a batch is queued.
//!
//! Owns: [`Prevalidated`]: preconditions that were checked, and stay as they are unless something is removed. A
//! manifest may have tens of thousands of them, and checking them under the sequencer's lock would delay every other
//! commit. Refuses: the decision. The sequencer uses the result only if nothing was removed since, and checks again
//! otherwise.
//!
//! Invariant: only facts that nothing but a removal can end are prevalidated.

use crate::catalog::View;
use crate::error::Result;
use crate::finished_blob::FinishedBlob;
use crate::format::transaction::Operation;
use crate::io::Env;
use crate::table::resident_off_worker;
use crate::vocabulary::{Batch, Require};

/// Preconditions up to which a batch is checked under the sequencer's lock, which is cheaper than another thread.
pub(crate) const REQUIRES_INLINE_MAX: usize = 256;
/// Preconditions in one computation. Other work runs between two computations.
const REQUIRES_AT_ONCE: usize = 1024;

/// The result of checking preconditions, as of a number of removals.
#[derive(Debug)]
pub(crate) struct Prevalidated {
    pub(super) removals: u64,
    /// Those that held.
    pub(super) requires: Vec<Require>,
    /// Those that did not. The batch is rejected when the state that shows this is durable.
    pub(super) unmet: Vec<Require>,
}

/// Checks a large batch's preconditions off the async workers and moves them out of the batch.
///
/// `head` returns the state with everything queued, and the number of removals before it. Returns `None` for a small
/// batch.
pub(crate) async fn prevalidate(
    env: &Env,
    batch: &mut Batch<FinishedBlob>,
    head: impl FnOnce() -> (View, u64),
) -> Result<Option<Prevalidated>> {
    if batch.requires.len() <= REQUIRES_INLINE_MAX {
        return Ok(None);
    }
    let (prevalidated, rest) = std::mem::take(&mut batch.requires)
        .into_iter()
        .partition::<Vec<_>, _>(ends_by_removal_only);
    batch.requires = rest;
    let (view, removals) = head();
    let (mut requires, mut unmet) = (Vec::with_capacity(prevalidated.len()), Vec::new());
    let mut prevalidated = prevalidated.into_iter();
    loop {
        let piece: Vec<Require> = prevalidated.by_ref().take(REQUIRES_AT_ONCE).collect();
        if piece.is_empty() {
            break;
        }
        let (view, repository) = (view.clone(), batch.repository.clone());
        let check = move || check(&view, &repository, &piece);
        let (held, failed) = resident_off_worker(env, check).await?;
        requires.extend(held);
        unmet.extend(failed);
    }
    Ok(Some(Prevalidated {
        removals,
        requires,
        unmet,
    }))
}

/// Splits preconditions into those that hold and those that do not.
fn check(
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

/// Returns whether only a removal can end this precondition.
fn ends_by_removal_only(require: &Require) -> bool {
    match require {
        Require::Repository
        | Require::Linked(_)
        | Require::LinkedIn { .. }
        | Require::Manifest(_)
        | Require::Stored(_) => true,
        Require::Attributes { .. } | Require::Tag { .. } | Require::TagExists(_) => false,
    }
}

/// Returns whether an operation may end a prevalidated precondition. An operation counts unless it is known to end
/// none.
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
            | Operation::ClearSuspect { .. }
            | Operation::ClearManifest { .. }
            | Operation::SuspectManifest { .. }
            | Operation::FollowSubject { .. }
    )
}
