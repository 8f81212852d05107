//! `tonnage inspect`: decodes files of a store.
//!
//! Owns: the choice of paths and the text form.
//! Refuses: writing; it needs no lock and may run beside a server.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::inspect::{self, Findings};
use crate::output;

/// Arguments of `inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// Files of a store, or its directory
    #[arg(required_unless_present = "data", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Directory of a store
    #[arg(long, value_name = "DIR", conflicts_with = "paths")]
    data: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    files: Vec<Inspected>,
}

#[derive(Serialize)]
struct Inspected {
    path: PathBuf,
    #[serde(flatten)]
    findings: Findings,
}

/// Inspects every path.
pub(crate) fn run(arguments: &Inspect) -> Result<Exit, Failure> {
    let mut files = Vec::new();
    for path in arguments.paths.iter().chain(&arguments.data) {
        let findings = inspect::look(path).map_err(|error| {
            Failure::new(
                Exit::Disk,
                format!("{} cannot be read: {error}", path.display()),
            )
        })?;
        files.push(Inspected {
            path: path.clone(),
            findings,
        });
    }
    let sound = files.iter().all(|file| file.findings.problems.is_empty());
    if arguments.json {
        output::json(&Report { files })?;
    } else {
        for file in &files {
            print(file)?;
        }
    }
    Ok(if sound { Exit::Done } else { Exit::Problems })
}

fn print(file: &Inspected) -> Result<(), Failure> {
    let Findings {
        kind,
        facts,
        parts,
        problems,
    } = &file.findings;
    output::result(&format!("{}: {kind}", file.path.display()))?;
    for (name, value) in facts {
        output::result(&format!("  {name}: {}", plain(value)))?;
    }
    for part in parts {
        let fields = part.as_object().into_iter().flatten();
        let shown = fields.filter(|(_, value)| !value.is_array());
        let words: Vec<String> = shown
            .map(|(name, value)| format!("{name} {}", plain(value)))
            .collect();
        output::result(&format!("    {}", words.join("  ")))?;
        for line in part
            .get("operations")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            output::result(&format!("      {}", plain(line)))?;
        }
    }
    for problem in problems {
        output::result(&format!("  PROBLEM: {problem}"))?;
    }
    Ok(())
}

/// Formats a value without quotes. Control characters are escaped, because clients choose names and actors.
fn plain(value: &Value) -> String {
    match value.as_str() {
        Some("") => "-".to_owned(),
        Some(text) => text.escape_debug().to_string(),
        None => value.to_string(),
    }
}
