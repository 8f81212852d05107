//! `tonnage scrub`: lets a running server read and verify all of its content now.
//!
//! Owns: the text and JSON forms. Refuses: closed stores, which `fsck` checks.

use tonnage_server::admin::{GetScrub, ScrubbedStore, StartScrub};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::target::{Target, TargetArguments};
use crate::units::{format_about, parse_size};
use crate::waiting::{Ended, run_job};

/// Arguments of `scrub`.
#[derive(Debug, clap::Args)]
pub(crate) struct Scrub {
    /// Compute all digests, too; otherwise only checksums are compared
    #[arg(long)]
    digests: bool,
    /// Most bytes to read in a second [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    rate: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

/// Runs one pass, and waits for its end.
pub(crate) fn run(arguments: &Scrub) -> Result<Exit, Failure> {
    let mut target = Target::find(&arguments.target)?;
    let start = StartScrub {
        digests: arguments.digests,
        bytes_per_second: arguments.rate.unwrap_or_default(),
    };
    let details = |_: &ScrubbedStore| String::new();
    let found = match run_job(&mut target, start, |job| GetScrub { job }, details)? {
        Ended::Complete(found) => found,
        Ended::Failed { what, .. } => {
            let what = format!("the scrub has not read everything: {what}");
            return Err(Failure::new(Exit::Disk, what)
                .hint("what was found before is marked; see the server's log"));
        }
    };
    if arguments.json {
        output::json(&found)?;
    } else {
        print(&found)?;
    }
    Ok(if found.damaged > 0 {
        Exit::Problems
    } else if found.skipped > 0 {
        Exit::Disk
    } else {
        Exit::Done
    })
}

fn print(found: &ScrubbedStore) -> Result<(), Failure> {
    for blob in &found.listed {
        output::result(&format!("damaged {}", blob.digest))?;
        let kinds = [
            ("tag", &blob.tags),
            ("manifest", &blob.manifests),
            ("repository", &blob.repositories),
        ];
        for (kind, names) in kinds {
            for name in names {
                output::result(&format!("  needed by {kind} {name}"))?;
            }
        }
        if blob.more {
            output::result("  and more")?;
        }
    }
    let bytes = format_about(found.bytes);
    output::result(&format!(
        "read {bytes} in {} segments; {} blobs are intact, {} are damaged",
        found.segments, found.blobs, found.damaged
    ))?;
    if found.damaged > 0 {
        output::result(
            "to heal it: tonnage repair --from REGISTRY, or push the same content again; until then a HEAD of it is 404",
        )?;
    }
    if found.skipped > 0 {
        let skipped = found.skipped;
        output::result(&format!(
            "{skipped} segments or blobs could not be read for lack of resources; see the server's log"
        ))?;
    }
    Ok(())
}
