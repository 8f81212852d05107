//! `tonnage repair`: heals damaged blobs of an open or closed store with content from another registry.
//!
//! Owns: the options about the other registry, the text and JSON forms. Refuses: the repair
//! itself, which the server does, or this process on a closed store.

use std::path::PathBuf;

use tonnage_server::admin::{GetRepair, PlanRepair, PlannedRepair, RepairedStore, StartRepair};
use tonnage_server::outgoing::{InvalidAddress, RegistryAddress, RegistryCredentials, Secret};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::input;
use crate::output;
use crate::target::{Target, TargetArguments};
use crate::units::{format_about, parse_size};
use crate::waiting::{Ended, run_job};

/// The variable with the password.
const PASSWORD: &str = "TONNAGE_REPAIR_PASSWORD";

/// Arguments of `repair`.
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArguments {
    /// The registry to fetch from, optionally with a path before the names of repositories
    // Not parsed by clap, which quotes what is wrong: it may have a password.
    #[arg(long, value_name = "URL")]
    from: String,
    /// User name at that registry; the password is in the variable `TONNAGE_REPAIR_PASSWORD`, or see --password-stdin
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Trust the certificates in this PEM file, too, beside those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Most bytes to receive in a second [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    rate: Option<u64>,
    /// Only list what is damaged and would be asked for
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

/// Repairs, and waits for the end.
pub(crate) fn run(arguments: &RepairArguments) -> Result<Exit, Failure> {
    let from: RegistryAddress = arguments
        .from
        .parse()
        .map_err(|why: InvalidAddress| Failure::new(Exit::Usage, format!("--from: {why}")))?;
    let mut target = Target::find(&arguments.target)?;
    let start = StartRepair {
        from,
        credentials: credentials(arguments)?,
        authorities: arguments
            .ca
            .as_deref()
            .map(input::authorities)
            .transpose()?,
        bytes_per_second: arguments.rate.unwrap_or_default(),
    };
    if arguments.dry_run {
        return print_plan(arguments, &target.ask(PlanRepair {})?);
    }
    let details =
        |done: &RepairedStore| format!("{} healed, {} not healed", done.healed, done.left);
    match run_job(&mut target, start, |job| GetRepair { job }, details)? {
        Ended::Complete(done) => {
            print_done(arguments, &done)?;
            Ok(match (done.left, done.healed) {
                (0, 0) => Exit::Done,
                (0, _) => Exit::HEALED,
                _ => Exit::UNHEALED,
            })
        }
        Ended::Failed { what, so_far } => {
            if let Some(done) = so_far {
                print_done(arguments, &done)?;
            }
            let what = format!("the repair ended before it had tried every damaged blob: {what}");
            Err(Failure::new(Exit::UNHEALED, what).hint("what it healed stays; repeat the command"))
        }
    }
}

fn credentials(arguments: &RepairArguments) -> Result<Option<RegistryCredentials>, Failure> {
    let Some(username) = arguments.username.clone() else {
        return Ok(None);
    };
    let password = input::password_of(&username, arguments.password_stdin, PASSWORD)?;
    let password = Secret::new(password);
    Ok(Some(RegistryCredentials { username, password }))
}

fn print_plan(arguments: &RepairArguments, plan: &PlannedRepair) -> Result<Exit, Failure> {
    let exit = if plan.damaged == 0 {
        Exit::Done
    } else {
        Exit::UNHEALED
    };
    if arguments.json {
        output::json(plan)?;
        return Ok(exit);
    }
    for blob in &plan.listed {
        output::result(&format!(
            "damaged {} ({})",
            blob.digest,
            format_about(blob.bytes)
        ))?;
        for place in &blob.places {
            output::result(&format!("  to ask for: {place}"))?;
        }
    }
    let (damaged, bytes) = (plan.damaged, format_about(plan.bytes));
    let from = &arguments.from;
    output::result(&format!(
        "{damaged} blobs with {bytes} are damaged; {from} would be asked for them"
    ))?;
    Ok(exit)
}

fn print_done(arguments: &RepairArguments, done: &RepairedStore) -> Result<(), Failure> {
    if arguments.json {
        output::json(done)?;
        return Ok(());
    }
    for blob in &done.listed {
        let (digest, from) = (&blob.digest, &arguments.from);
        let line = match (&blob.place, blob.healed) {
            (Some(place), _) => format!("healed {digest}: {place}, from {from}"),
            (None, true) => format!("healed {digest}: it was pushed or removed meanwhile"),
            (None, false) => format!("still damaged {digest}"),
        };
        output::result(&line)?;
        for refused in &blob.refused {
            output::result(&format!("  {}: {}", refused.place, refused.why))?;
        }
        if !blob.healed && blob.refused.is_empty() {
            output::result("  no repository needs it, so there is no name to ask for")?;
        }
    }
    let (healed, left) = (done.healed, done.left);
    let bytes = format_about(done.healed_bytes);
    output::result(&format!(
        "{healed} blobs with {bytes} were healed; {left} are still damaged"
    ))?;
    Ok(())
}
