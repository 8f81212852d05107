//! The sequencer's part in a checkpoint.
//!
//! Owns: freezing the durable state, and installing the runs of a checkpoint or a merge in every state. Refuses:
//! writing runs (`checkpoint`, `table`).
//!
//! Invariants: a checkpoint freezes exactly the durable state. What is in flight or queued is applied again on top of
//! it.

use std::sync::Arc;

use super::Sequencer;
use crate::catalog::apply;
use crate::error::Result;
use crate::journal::Position;
use crate::state::State;
use crate::table::{Layers, Runs};

/// A durable state whose delta is frozen, for a checkpoint to write out.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    /// The state; the checkpoint writes `state.layers.frozen()`.
    pub state: Arc<State>,
    /// Where replay begins on top of the state.
    pub position: Position,
}

impl Sequencer {
    /// Freezes the durable state for a checkpoint. Returns `None` if one is frozen already.
    pub(crate) fn freeze(&self) -> Result<Option<Frozen>> {
        let mut inner = self.inner.lock();
        let durable = self.durable();
        if durable.layers.frozen().is_some() {
            return Ok(None);
        }
        let mut frozen = (*durable).clone();
        frozen.layers = durable.layers.freeze();
        let mut head = frozen.clone();
        // All or nothing: if a row cannot be read, every state stays as it was.
        let mut states = Vec::new();
        for transactions in inner.frames() {
            for queued in transactions {
                apply::transaction(&mut head, &queued.transaction)?;
            }
            states.push(head.clone());
        }
        // There is no state for the last frame of the queue, after which it is `head`.
        for (after, state) in inner.states_mut().zip(states) {
            *after = state;
        }
        inner.head = head;
        let state = Arc::new(frozen);
        self.durable.store(Arc::clone(&state));
        Ok(Some(Frozen {
            state,
            position: inner.position,
        }))
    }

    /// Installs `runs`, which contain the frozen delta.
    pub(crate) fn install(&self, runs: &Runs) {
        self.replace_layers(|layers| layers.unfreeze(runs.clone()));
    }

    /// Installs `runs`, which replace the runs that were merged.
    pub(crate) fn install_merged(&self, runs: &Runs) {
        self.replace_layers(|layers| layers.with_runs(runs.clone()));
    }

    /// Replaces the layers of every state by others with the same rows.
    fn replace_layers(&self, replaced: impl Fn(&Layers) -> Layers) {
        let mut inner = self.inner.lock();
        let replace = |state: &mut State| {
            let new = replaced(&state.layers);
            std::mem::replace(&mut state.layers, new)
        };
        // Dropped after the lock: dropping the last owner of a delta takes milliseconds.
        let mut old = vec![replace(&mut inner.head)];
        old.extend(inner.states_mut().map(replace));
        let before = self.durable();
        let mut durable = (*before).clone();
        old.push(replace(&mut durable));
        self.durable.store(Arc::new(durable));
        drop(inner);
        self.published.notify_waiters();
        drop((before, old));
    }
}
