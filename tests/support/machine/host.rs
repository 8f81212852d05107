//! The interface that a disk needs of its machine.

use tonnage_engine::io::{Clock, Spawn};

use super::executor::Job;
use super::handle::Handle;

/// A machine that decides when operations of its disk take effect: the executor, or the scheduler of `tests/races`.
pub trait Host: Clock + Spawn {
    /// Accepts an operation, which happens at some later moment. `changes` tells whether it changes the disk or makes a
    /// change durable.
    fn submit(&self, changes: bool, operation: Job);

    /// Stops the machine, because its disk stopped.
    fn stop(&self);
}

impl Host for Handle {
    fn submit(&self, _: bool, operation: Job) {
        let mut state = self.shared.state.lock();
        if state.stopped {
            drop(state);
            drop(operation);
        } else {
            state.operations.push(operation);
        }
    }

    /// Ends the current run with [`super::Outcome::Crashed`].
    fn stop(&self) {
        self.shared.state.lock().stopped = true;
    }
}
