//! Files that are no longer used and not closed yet.
//!
//! Owns: [`Closing`]. Refuses: deciding when a file is no longer used.
//!
//! Closing a removed file frees its space, which takes long for a large one. So a thread does it, and for a moment there are more
//! descriptors than files in use. An open that finds no descriptor closes all of these first.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Descriptors that are to be closed.
#[derive(Debug, Default)]
pub(super) struct Closing {
    state: Mutex<State>,
    one_closed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Arc<OwnedFd>>,
    under_way: usize,
}

impl Closing {
    /// Takes a descriptor in; [`Closing::close_one`] has to be called once for each.
    pub(super) fn add(&self, descriptor: Arc<OwnedFd>) {
        self.state.lock().waiting.push(descriptor);
    }

    /// Closes one of those that wait, if there is any left. An operation that still uses it closes it at its own end.
    pub(super) fn close_one(&self) -> bool {
        let mut state = self.state.lock();
        let Some(descriptor) = state.waiting.pop() else {
            return false;
        };
        state.under_way += 1;
        drop(state);
        drop(descriptor);
        self.state.lock().under_way -= 1;
        self.one_closed.notify_all();
        true
    }

    /// Closes all that wait, on this thread, and lets other threads end what they are closing. Returns whether there was anything.
    pub(super) fn close_all(&self) -> bool {
        let mut any = false;
        while self.close_one() {
            any = true;
        }
        let mut state = self.state.lock();
        while state.under_way > 0 {
            any = true;
            self.one_closed.wait(&mut state);
        }
        any
    }
}
