//! Checks that the process can start the threads that a server needs.
//!
//! Owns: the check before the runtime is started. A runtime that gets no thread panics, and one that gets too few
//! starts and then hangs.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::exit::Exit;
use crate::failure::Failure;

/// Threads besides those that run requests: one for each of the seven I/O lanes, one for computations, one for large
/// manifests, one for the log.
const BESIDE_WORKERS: usize = 10;

/// Fails if a server with `workers` threads for requests, and `more` for encryption and access control, cannot start
/// all threads that it needs.
pub(crate) fn check(workers: usize, more: usize) -> Result<(), Failure> {
    let needed = workers + BESIDE_WORKERS + more;
    let (started, refused) = start(needed);
    let Some(refused) = refused else {
        return Ok(());
    };
    let what = format!(
        "a server needs at least {needed} threads, but only {started} could be started: {refused}"
    );
    Err(of_threads(what))
}

/// Returns the failure for threads that could not be started.
pub(crate) fn of_threads(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Disk, what)
        .hint("raise the limit: ulimit -u for this user, pids.max for the control group of a container or service")
}

/// Starts up to `wanted` idle threads and ends all of them. Returns how many could be started, and the error of the
/// next one.
fn start(wanted: usize) -> (usize, Option<io::Error>) {
    let gate = Arc::new(Mutex::new(()));
    let shut = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut threads, mut refused) = (Vec::with_capacity(wanted), None);
    while threads.len() < wanted && refused.is_none() {
        let gate = Arc::clone(&gate);
        let thread = std::thread::Builder::new().name("tonnage-probe".to_owned());
        match thread.spawn(move || drop(gate.lock())) {
            Ok(thread) => threads.push(thread),
            Err(error) => refused = Some(error),
        }
    }
    drop(shut);
    let started = threads.len();
    for thread in threads {
        // The thread does nothing that could fail.
        drop(thread.join());
    }
    (started, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the check passes if enough threads can be started.
    #[test]
    fn threads_that_can_be_had_are_enough() {
        assert!(check(2, 0).is_ok());
        assert_eq!(start(3).0, 3);
    }
}
