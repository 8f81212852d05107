//! Messages of tests to the user who runs them, despite the capture of the test harness; and settings of runs.
//!
//! Owns: [`print_line`], [`skipped`], [`full`], [`required`]. Refuses: silent skips, which a captured `println!` would
//! be.

use std::env;
use std::io::Write;

/// Writes one line to the real stderr, whether or not the harness captures the test's output.
pub fn print_line(line: &str) {
    // One write for each line, so that lines of parallel tests do not mix. An error is ignored.
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}

/// Prints that something was not tested, and why.
pub fn skipped(what: &str, why: &str) {
    print_line(&format!("SKIPPED: {what} because {why}"));
}

/// Returns whether the long cases and those of several gigabytes are enabled (`TONNAGE_TEST_FULL=1`).
pub fn full() -> bool {
    env::var("TONNAGE_TEST_FULL").is_ok_and(|value| value == "1")
}

/// Returns whether the environment variable `name` (`TONNAGE_TEST_CLIENTS`, `TONNAGE_TEST_STRACE`) turns a skip into a
/// failure.
pub fn required(name: &str) -> bool {
    env::var(name).is_ok_and(|value| value == "require" || value == "all")
}
