//! `tonnage check-config`: reports all errors of a configuration at once.
//!
//! Owns: the report.
//! Refuses: access to the data directory or to ports.

use std::path::PathBuf;

use serde::Serialize;

use crate::config;
use crate::config::Loaded;
use crate::config::flags::ConfigFlags;
use crate::config::mistake::Mistake;
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
    let loaded = config::load(&arguments.flags);
    let ok = loaded.mistakes.is_empty();
    if arguments.json {
        output::json(&Report {
            ok,
            file: loaded.file.as_ref(),
            mistakes: &loaded.mistakes,
            warnings: &loaded.warnings,
        })?;
    } else {
        for warning in &loaded.warnings {
            output::note(&format!("warning: {warning}"));
        }
        for mistake in &loaded.mistakes {
            output::result(&mistake.to_string())?;
        }
        output::result(&verdict(&loaded))?;
    }
    Ok(if ok { Exit::Done } else { Exit::Problems })
}

fn verdict(loaded: &Loaded) -> String {
    let what = match &loaded.file {
        Some(path) => format!("{}, variables and flags", path.display()),
        None => "variables and flags (no file was given; --config names one)".to_owned(),
    };
    match loaded.mistakes.len() {
        0 => format!("no errors in {what}"),
        1 => format!("1 error in {what}"),
        count => format!("{count} errors in {what}"),
    }
}
