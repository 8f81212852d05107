//! `tonnage check-config`: everything that is wrong with a configuration, at once.
//!
//! Owns: the report.
//! Refuses: touching the data directory or opening a port.

use std::path::PathBuf;

use serde::Serialize;

use crate::config;
use crate::config::diagnose::Mistake;
use crate::config::flags::ConfigFlags;
use crate::config::resolve::Resolved;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// Arguments of `check-config`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckConfig {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    file: Option<&'a PathBuf>,
    mistakes: &'a [Mistake],
    warnings: &'a [Mistake],
}

/// Checks and reports.
pub(crate) fn run(arguments: &CheckConfig) -> Result<Exit, Failure> {
    let resolved = config::load(&arguments.flags);
    let ok = resolved.mistakes.is_empty();
    if arguments.json {
        output::json(&Report {
            ok,
            file: resolved.file.as_ref(),
            mistakes: &resolved.mistakes,
            warnings: &resolved.warnings,
        })?;
    } else {
        for warning in &resolved.warnings {
            output::note(&format!("warning: {warning}"));
        }
        for mistake in &resolved.mistakes {
            output::result(&mistake.to_string())?;
        }
        output::result(&verdict(&resolved))?;
    }
    Ok(if ok { Exit::Done } else { Exit::Problems })
}

fn verdict(resolved: &Resolved) -> String {
    let what = match &resolved.file {
        Some(path) => format!("{}, variables and flags", path.display()),
        None => "variables and flags (no file was given; --config names one)".to_owned(),
    };
    match resolved.mistakes.len() {
        0 => format!("no mistakes in {what}"),
        1 => format!("1 mistake in {what}"),
        count => format!("{count} mistakes in {what}"),
    }
}
