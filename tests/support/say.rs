//! What a test tells the person who runs it, past the capture of the test harness.
//!
//! Owns: [`aloud`], [`skipped`], [`full`], [`required`]. Refuses: skipping in silence, which is what a captured `println!` would be.

use std::env;
use std::io::Write;

/// Writes one line to the real stderr, whether or not the harness captures the test's output.
pub fn aloud(line: &str) {
    // One write per line, so that lines of parallel tests do not mix. A closed stderr leaves nobody to tell.
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}

/// Says that something was not tested, and why.
pub fn skipped(what: &str, why: &str) {
    aloud(&format!("SKIPPED: {what} because {why}"));
}

/// Whether the multi-gigabyte and long cases were asked for (`TONNAGE_TEST_FULL=1`).
pub fn full() -> bool {
    env::var("TONNAGE_TEST_FULL").is_ok_and(|value| value == "1")
}

/// Whether the environment variable `name` (`TONNAGE_TEST_CLIENTS`, `TONNAGE_TEST_STRACE`) turns a
/// skip into a failure.
pub fn required(name: &str) -> bool {
    env::var(name).is_ok_and(|value| value == "require" || value == "all")
}
