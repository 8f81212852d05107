//! Log lines: text for people, JSON for programs, both on standard error.
//!
//! Owns: the one subscriber of the process. Lines are written by a thread of their own ([`lines`]).
//! Refuses: colour outside of terminals, or if `NO_COLOR` is set.

mod fields;
mod lines;

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::serve::threads;
use fields::PlainFields;
use lines::Lines;

/// The lines of the process, once logging has started.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Starts logging at `level` and above. Other libraries log from `warn` only, so that `debug` shows messages of this
/// program.
pub(crate) fn start(level: &str, json: bool) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Exit::Usage, format!("logging cannot start: {why}"));
    let level: LevelFilter = level.parse().map_err(|e| failed(format!("{level}: {e}")))?;
    // By the beginning of a name: those of all crates of this program. Unlike a filter that also looks at spans, it
    // takes no lock when a span begins, is entered, and ends.
    let filter = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("tonnage", level);
    let lines = Lines::start(io::stderr(), report_dropped)
        .map_err(|error| threads::of_threads(format!("no thread for the log: {error}")))?;
    let lines = LINES.get_or_init(|| lines).clone();
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        // Otherwise it would report to stderr that stderr cannot be written, and panic if that fails: on a full disk,
        // in a request.
        .log_internal_errors(false)
        .with_writer(lines);
    let started = if json {
        let builder = builder.json().flatten_event(true);
        builder.finish().with(filter).try_init()
    } else {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let builder = builder
            .with_ansi(io::stderr().is_terminal() && !plain)
            .fmt_fields(PlainFields);
        builder.finish().with(filter).try_init()
    };
    started.map_err(|error| failed(error.to_string()))
}

fn report_dropped(lines: u64) {
    tracing::warn!(
        lines,
        "log lines were dropped, because standard error was not read"
    );
}

/// Waits until what was logged is written, unless nobody reads it: before something else is written to standard error,
/// and at the end.
pub(crate) fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}
