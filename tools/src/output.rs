//! Where words go: results to standard output, everything else to standard error.
//!
//! Owns: the only writes to the two streams outside of logging.
//! Refuses: colour; the text has to read the same in a file.

use std::io::{self, Write as _};

use serde::Serialize;

/// Version of the layout of every `--json` result; grows when a field changes its meaning or goes.
pub(crate) const JSON_VERSION: u32 = 1;

/// One line of a result.
pub(crate) fn result(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// A result as JSON, indented, with `"version"` as its first field.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        version: u32,
        #[serde(flatten)]
        value: &'a T,
    }
    let text = serde_json::to_string_pretty(&Versioned {
        version: JSON_VERSION,
        value,
    })?;
    result(&text)
}

/// One line for the person at the terminal, not part of the result. That nobody may be reading standard
/// error is no reason to stop.
pub(crate) fn note(line: &str) {
    writeln!(io::stderr().lock(), "{line}").unwrap_or_default();
}
