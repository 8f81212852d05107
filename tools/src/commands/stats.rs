//! `tonnage stats`: prints counts and sizes of a store.
//!
//! Owns: the text and JSON forms. Refuses: reading payloads; `fsck` does.

use std::path::Path;

use serde::Serialize;
use tonnage_server::admin::{self, GetStats};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::target::{Target, TargetArguments};
use crate::units::format_about;

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct Stats {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

#[derive(Debug, Serialize)]
struct Counted<'a> {
    /// The store, or the socket that was named instead.
    data: &'a Path,
    /// Whether a server has it open.
    open: bool,
    #[serde(flatten)]
    stats: admin::Stats,
}

/// Prints counts and sizes of the store.
pub(crate) fn run(arguments: &Stats) -> Result<Exit, Failure> {
    let mut target = Target::find(&arguments.target)?;
    let stats = target.ask(GetStats {})?;
    let counted = Counted {
        data: target.path(),
        open: target.is_served(),
        stats,
    };
    if arguments.json {
        output::json(&counted)?;
    } else {
        print(&counted)?;
    }
    Ok(Exit::Done)
}

fn print(counted: &Counted<'_>) -> Result<(), Failure> {
    let Counted { data, open, stats } = counted;
    let is_low = stats.disk_available_bytes < stats.free_space_min_bytes;
    let state = match (open, stats.poisoned, is_low) {
        (false, _, _) => "closed",
        (true, false, false) => "open, a server runs",
        (true, false, true) => "open, but pushes are refused: the disk is nearly full",
        (true, true, _) => "open, but read-only since a failure; the server's log has the cause",
    };
    let stored = format_about(stats.blob_bytes);
    let free = format_about(stats.disk_available_bytes);
    let total = format_about(stats.disk_total_bytes);
    let kept = match stats.free_space_min_bytes {
        0 => String::new(),
        min => format!(", uploads must leave {}", format_about(min)),
    };
    for (name, value) in [
        ("store", data.display().to_string()),
        ("state", state.to_owned()),
        ("repositories", stats.repositories.to_string()),
        ("blobs", format!("{}, {stored}", stats.blobs)),
        ("uploads", format!("{} unfinished", stats.uploads)),
        ("segments", stats.segments.to_string()),
        ("disk", format!("{free} of {total} free{kept}")),
        ("last LSN", stats.lsn.to_string()),
    ] {
        output::result(&format!("{name:<12}  {value}"))?;
    }
    Ok(())
}
