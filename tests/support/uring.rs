//! Whether `io_uring` works on this machine, and which backend the next server of a lane gets.
//!
//! Owns: [`start`], [`works`], [`backend`], [`strace`]. Refuses: a silent skip. `TONNAGE_TEST_URING=require` turns it
//! into a failure, as `TONNAGE_TEST_STRACE=require` does where strace does not run.

use std::process::{Command, Stdio};

use tonnage_engine::io::threads::Threads;
use tonnage_engine::io::uring::{Table, Uring};

use crate::say;

/// Starts a backend that lets rings do all that they can. Prints why it cannot; fails then if it is required.
pub fn start() -> Option<Uring> {
    let threads = Threads::start().expect("threads can be started");
    match Uring::start(&threads, Table::All) {
        Ok(uring) => Some(uring),
        Err(unavailable) => {
            let required = say::required("TONNAGE_TEST_URING");
            assert!(!required, "{unavailable}; {}", unavailable.hint());
            say::skipped("io_uring", &unavailable.to_string());
            None
        }
    }
}

/// Returns whether [`start`] succeeds.
pub fn works() -> bool {
    start().is_some()
}

/// Returns the options for a server's backend: the one that `TONNAGE_IO` names, else `io_uring` at every second turn
/// where it works.
pub fn backend(turn: u64) -> Vec<String> {
    if std::env::var_os("TONNAGE_IO").is_some() {
        return Vec::new();
    }
    let rings = turn.is_multiple_of(2) && works();
    let name = if rings { "io_uring" } else { "threads" };
    vec!["--io".to_owned(), name.to_owned()]
}

/// Returns whether strace can trace here. Prints why it cannot that `what` is skipped; fails then if it is required.
pub fn strace(what: &str) -> Result<bool, String> {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-e", "trace=openat", "true"])
        .stdin(Stdio::null());
    let why = match command.output() {
        Ok(output) if output.status.success() => return Ok(true),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let why = format!("strace cannot trace here: {why}");
    say::skipped(what, &why);
    if say::required("TONNAGE_TEST_STRACE") {
        return Err(format!("strace is required (TONNAGE_TEST_STRACE): {why}"));
    }
    Ok(false)
}
