//! `tonnage collect` and `tonnage compact`: remove what nothing references, and return its space.
//!
//! Owns: the text and JSON forms of both. `compact` is a full collection of a store that no server has open.

use serde::Serialize;
use tonnage_server::admin::{CollectedGarbage, Compacted, GetCollection, StartCollection};

use crate::config::flags::ConfigFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::target::{Target, TargetArguments};
use crate::units::format_about;
use crate::waiting::{Ended, run_job};

/// Arguments of `collect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Collect {
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Also compact shared segments, until hardly any dead bytes are left
    #[arg(long)]
    full: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

/// Arguments of `compact`.
#[derive(Debug, clap::Args)]
pub(crate) struct Compact {
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Debug, Serialize)]
struct Collection {
    removed: bool,
    #[serde(flatten)]
    found: CollectedGarbage,
}

/// Runs one cycle of collection, or prints what it would remove.
pub(crate) fn run(arguments: &Collect) -> Result<Exit, Failure> {
    let (dry_run, full) = (arguments.dry_run, arguments.full);
    let mut target = Target::find(&arguments.target)?;
    collect(
        &mut target,
        StartCollection { dry_run, full },
        arguments.json,
    )
}

/// Collects and compacts a closed store, or prints what that would remove.
pub(crate) fn compact(arguments: &Compact) -> Result<Exit, Failure> {
    let (dry_run, full) = (arguments.dry_run, true);
    let mut target = Target::closed(&arguments.flags)?;
    let ended = collect(
        &mut target,
        StartCollection { dry_run, full },
        arguments.json,
    );
    ended.map_err(|failure| {
        if failure.exit == Exit::InUse {
            return failure.hint("or let the server do it: tonnage collect --full");
        }
        failure
    })
}

fn collect(target: &mut Target, start: StartCollection, json: bool) -> Result<Exit, Failure> {
    let details = |_: &CollectedGarbage| String::new();
    let ended = run_job(target, start, |job| GetCollection { job }, details)?;
    match ended {
        Ended::Complete(found) => {
            show(start, found, json)?;
            Ok(Exit::Done)
        }
        Ended::Failed { what, so_far } => {
            if let Some(found) = so_far {
                show(start, found, json)?;
            }
            let what = format!("the collection ended early: {what}");
            Err(Failure::new(Exit::Disk, what)
                .hint("what it removed is removed; repeat the command"))
        }
    }
}

fn show(start: StartCollection, found: CollectedGarbage, json: bool) -> Result<(), Failure> {
    let collection = Collection {
        removed: !start.dry_run,
        found,
    };
    if json {
        output::json(&collection)?;
        return Ok(());
    }
    print(&collection, start.full)
}

fn print(collection: &Collection, full: bool) -> Result<(), Failure> {
    let Collection { removed, found } = collection;
    let verb = if *removed { "removed" } else { "would remove" };
    for manifest in &found.listed_manifests {
        let (repository, digest) = (&manifest.repository, &manifest.digest);
        output::result(&format!("{verb} manifest {repository}@{digest}"))?;
    }
    for blob in &found.listed {
        let bytes = format_about(blob.bytes);
        output::result(&format!("{verb} {}, {bytes}", blob.digest))?;
    }
    let bytes = format_about(found.bytes);
    let mut total = format!(
        "{verb} {} manifests and {} blobs, {bytes}",
        found.manifests, found.blobs
    );
    if *removed {
        total = format!("{total}; unlinked {} segments", found.segments);
    }
    output::result(&total)?;
    if full {
        let Compacted {
            segments,
            moved_bytes,
            freed_bytes,
            left,
            ..
        } = found.compaction;
        let (moved, freed) = (format_about(moved_bytes), format_about(freed_bytes));
        let compacted = if *removed {
            format!("compacted {segments} segments: moved {moved}, freed {freed}")
        } else {
            format!(
                "would compact {segments} segments beside that: move at most {moved}, free {freed}"
            )
        };
        output::result(&compacted)?;
        if left > 0 {
            output::result(&format!(
                "left {left} segments: blobs in them are damaged, they are in use, or there is no space for copies"
            ))?;
        }
    }
    let kept = format!(
        "kept {} whose grace is not over, and {} that were promised or are in use",
        found.in_grace, found.leased
    );
    output::result(&kept)?;
    Ok(())
}
