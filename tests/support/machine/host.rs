//! What a disk needs of the machine it is in.

use tonnage_engine::io::{Clock, Spawn};

use super::executor::Job;
use super::handle::Handle;

/// A machine that decides when operations of its disk take effect: the executor, or the scheduler of `tests/races`.
pub trait Host: Clock + Spawn {
    /// Takes in an operation, which happens at some later moment. `changes`: whether it changes the disk or makes a change durable.
    fn submit(&self, changes: bool, operation: Job);

    /// The disk stopped, and with it the machine.
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

    /// The run that is going on ends with [`super::Outcome::Crashed`].
    fn stop(&self) {
        self.shared.state.lock().stopped = true;
    }
}
