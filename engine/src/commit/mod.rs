//! Commit: from a batch to a durable, visible transaction.
//!
//! 1. [`prevalidate()`] checks the preconditions of a large batch, 1024 at a time, without the sequencer's lock.
//! 2. [`Sequencer::submit`] checks the batch against everything queued before it, and queues its transaction.
//! 3. [`run_journal`] takes what is queued, and writes and syncs it as one frame.
//! 4. `Sequencer::publish` makes the frame visible to readers, then answers its committers.
//! 5. `Sequencer::fail_queued` answers them instead if the frame failed, and drops what was queued after it.
//!
//! Owns: the order of transactions. [`resolve()`] (policy, pure) checks a batch against a state and returns its
//! operations. [`Sequencer`] queues transactions and publishes those that became durable. What its lock guards is in
//! `queue`, its part for checkpoints in `freeze`, and its part for transactions of the store itself in
//! `store_transactions`, `removals`, `manifest_removals` and `moves`. `run_journal` is the one task that writes frames.
//! Refuses: to hold a lock across an I/O, to show readers what is not durable, to reject a batch for a reason that is
//! not durable, and to retry a failed frame.
//!
//! Invariants: a batch is checked against the durable state plus everything queued before it. Each frame carries the
//! state after it, so publishing is one pointer swap. States are published in the order of their LSNs.

mod freeze;
pub(crate) mod group;
mod manifest_removals;
mod moves;
pub(crate) mod prevalidate;
mod queue;
mod removals;
pub(crate) mod resolve;
pub(crate) mod sequencer;
mod store_transactions;
#[cfg(test)]
mod tests;

pub(crate) use freeze::Frozen;
pub(crate) use group::{ShutdownSignals, run_journal};
pub(crate) use manifest_removals::{ManifestCandidates, ManifestRemovals, SuspectManifest};
pub(crate) use moves::{Move, Moves};
pub(crate) use prevalidate::prevalidate;
pub(crate) use removals::{Candidates, Removals, UNLINKS_MAX};
pub(crate) use resolve::resolve;
pub(crate) use sequencer::Sequencer;
pub(crate) use store_transactions::ManifestPurgeStep;
