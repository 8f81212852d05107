//! Files that are no longer used and not closed yet.
//!
//! Owns: [`Closing`]. Refuses: deciding when a file is no longer used.
//!
//! Closing a removed file frees its space, which takes long for a large one. So a separate thread closes it, and for a
//! moment more descriptors are open than files are in use. An open that finds no free descriptor closes all of these
//! first.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::io::mapped::FileWindows;

/// A file that is no longer used.
#[derive(Debug)]
pub(in crate::io) struct Unused {
    // Both are held for their drops. A mapped window keeps the file's space, too.
    _descriptor: Arc<OwnedFd>,
    _windows: Option<Arc<FileWindows>>,
}

impl Unused {
    /// Makes it of an open file, and of its mapped windows if there are any.
    pub(in crate::io) fn new(descriptor: Arc<OwnedFd>, windows: Option<Arc<FileWindows>>) -> Self {
        Self {
            _descriptor: descriptor,
            _windows: windows,
        }
    }
}

/// Files that are to be closed.
#[derive(Debug, Default)]
pub(super) struct Closing {
    state: Mutex<State>,
    one_closed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Unused>,
    under_way: usize,
}

impl Closing {
    /// Adds a file. [`Closing::close_one`] has to be called once for each.
    pub(super) fn add(&self, unused: Unused) {
        self.state.lock().waiting.push(unused);
    }

    /// Closes one of the waiting files; false if there is none. If an operation still uses it, it is closed at
    /// the end of that operation.
    pub(super) fn close_one(&self) -> bool {
        let mut state = self.state.lock();
        let Some(unused) = state.waiting.pop() else {
            return false;
        };
        state.under_way += 1;
        drop(state);
        drop(unused);
        self.state.lock().under_way -= 1;
        self.one_closed.notify_all();
        true
    }

    /// Closes all waiting files on this thread, and waits for those that other threads are closing. Returns
    /// whether there was any.
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
