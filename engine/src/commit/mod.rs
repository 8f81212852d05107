//! Commit: from a batch to a durable, visible transaction.
//!
//! Owns: the order of transactions. [`resolve()`] (policy, pure) judges a batch against a state and says which operations
//! it means; [`Sequencer`] queues transactions and publishes what became durable; `run_journal` is the one task that writes
//! frames.
//! Refuses: a lock held across an I/O; a reader seeing what is not durable; a refusal for what is not durable; a failed frame
//! being tried again.
//!
//! Invariants: a batch is judged against the durable state plus everything queued before it. Each queued
//! transaction carries the state it leads to, so publishing is one pointer swap. States are published in the order of their LSNs.

pub(crate) mod group;
pub(crate) mod prevalidate;
pub(crate) mod resolve;
pub(crate) mod sequencer;
#[cfg(test)]
mod tests;

pub(crate) use group::{Ending, run_journal};
pub(crate) use prevalidate::prevalidate;
pub(crate) use resolve::resolve;
pub(crate) use sequencer::{Cleared, Frozen, Sequencer};
