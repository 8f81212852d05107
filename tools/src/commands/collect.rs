//! `tonnage collect`: removes what nothing references and whose grace is over, on a running server.
//!
//! Owns: the text and JSON forms. Refuses: closed stores, because grace counts only while a server runs.

use serde::Serialize;
use tonnage_server::admin::{CollectGarbage, CollectedGarbage};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::target::{Target, TargetArguments};
use crate::units::format_about;

/// Arguments of `collect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Collect {
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

#[derive(Debug, Serialize)]
struct Collection {
    removed: bool,
    #[serde(flatten)]
    found: CollectedGarbage,
}

/// Runs one cycle of collection, or prints what it would remove.
pub(crate) fn run(arguments: &Collect) -> Result<Exit, Failure> {
    let dry_run = arguments.dry_run;
    let mut target = Target::find(&arguments.target)?;
    let found = target.ask(CollectGarbage { dry_run })?;
    let collection = Collection {
        removed: !dry_run,
        found,
    };
    if arguments.json {
        output::json(&collection)?;
    } else {
        print(&collection)?;
    }
    Ok(Exit::Done)
}

fn print(collection: &Collection) -> Result<(), Failure> {
    let Collection { removed, found } = collection;
    let verb = if *removed { "removed" } else { "would remove" };
    for blob in &found.listed {
        let bytes = format_about(blob.bytes);
        output::result(&format!("{verb} {}, {bytes}", blob.digest))?;
    }
    let bytes = format_about(found.bytes);
    let mut total = format!("{verb} {} blobs, {bytes}", found.blobs);
    if *removed {
        total = format!("{total}; unlinked {} segments", found.segments);
    }
    output::result(&total)?;
    let kept = format!(
        "kept {} whose grace is not over, and {} that were promised or are in use",
        found.in_grace, found.leased
    );
    output::result(&kept)?;
    Ok(())
}
