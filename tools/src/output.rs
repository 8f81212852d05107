//! Output: results to standard output, everything else to standard error.
//!
//! Owns: the only writes to the two streams outside of logging.
//! Refuses: colour, because the text must be the same in a file.

use std::io::{self, Write as _};

use serde::Serialize;
use serde_json::{Map, Value};

/// Version of the layout of every `--json` result. It increases when a field is removed or changes its meaning.
pub(crate) const JSON_VERSION: u32 = 1;

/// Prints one line of a result.
pub(crate) fn result(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Prints a result as indented JSON, with `"version"` as its first field.
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

/// A result of many entries that are printed as they are added: one line each, or one JSON document with `"version"` as
/// its first field.
#[derive(Debug)]
pub(crate) struct List {
    json: bool,
    head: Map<String, Value>,
    name: &'static str,
    begun: bool,
}

impl List {
    /// Creates a list that is named `name` in JSON.
    pub(crate) fn new(json: bool, name: &'static str) -> Self {
        let head = Map::from_iter([("version".to_owned(), JSON_VERSION.into())]);
        Self {
            json,
            head,
            name,
            begun: false,
        }
    }

    /// Adds a field before the entries, in JSON.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.head.insert(name.to_owned(), value.into());
        self
    }

    /// Prints one entry.
    pub(crate) fn entry(
        &mut self,
        entry: &impl Serialize,
        line: impl FnOnce() -> String,
    ) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if !self.json {
            return writeln!(stdout, "{}", line());
        }
        let separator = if self.begun { ",\n" } else { "" };
        self.begin(&mut stdout)?;
        let entry = serde_json::to_string(entry)?;
        write!(stdout, "{separator}    {entry}")
    }

    /// Prints the end of the list. After an error it is not called, so the JSON stays incomplete.
    pub(crate) fn end(self) -> io::Result<()> {
        self.end_with(&[])
    }

    /// Prints the end of the list, in JSON with fields after the entries.
    pub(crate) fn end_with(mut self, fields: &[(&str, Value)]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            let line = if self.begun { "\n" } else { "" };
            self.begin(&mut stdout)?;
            write!(stdout, "{line}  ]")?;
            for (name, value) in fields {
                write!(stdout, ",\n  \"{name}\": {value}")?;
            }
            writeln!(stdout, "\n}}")?;
        }
        stdout.flush()
    }

    fn begin(&mut self, out: &mut impl io::Write) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        writeln!(out, "{{")?;
        for (name, value) in &self.head {
            writeln!(out, "  \"{name}\": {value},")?;
        }
        writeln!(out, "  \"{}\": [", self.name)
    }
}

/// Prints one line for the user to standard error, which is not part of the result. Errors are ignored.
pub(crate) fn note(line: &str) {
    writeln!(io::stderr().lock(), "{line}").unwrap_or_default();
}
