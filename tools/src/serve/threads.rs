//! Whether the process may have the threads that a server needs.
//!
//! Owns: finding out before anything depends on it. A runtime that gets none ends in a panic, and one that gets too few starts and
//! then hangs.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::exit::Exit;
use crate::failure::Failure;

/// Threads beside those that run requests: one for each of the seven lanes of the disk, one that computes, one that reads a large
/// manifest.
const BESIDE_WORKERS: usize = 9;

/// An error if a server with `workers` threads for requests could not have all that it needs at once.
pub(crate) fn check(workers: usize) -> Result<(), Failure> {
    let needed = workers + BESIDE_WORKERS;
    let (started, refused) = start(needed);
    let Some(refused) = refused else {
        return Ok(());
    };
    let what = format!(
        "a server needs {needed} threads at least, and only {started} could be started: {refused}"
    );
    Err(of_threads(what))
}

/// Threads that could not be started.
pub(crate) fn of_threads(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Disk, what)
        .next("raise the limit: ulimit -u for this user, pids.max for the control group of a container or service")
}

/// Starts `wanted` threads that do nothing, lets all of them end, and returns how many there were, with the error of the next one.
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
        // It does nothing that could fail.
        drop(thread.join());
    }
    (started, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: threads that can be had are no reason not to start.
    #[test]
    fn threads_that_can_be_had_are_enough() {
        assert!(check(2).is_ok());
        assert_eq!(start(3).0, 3);
    }
}
