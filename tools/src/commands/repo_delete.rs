//! `tonnage repo delete`: a repository with everything in it.
//!
//! Owns: what is said about it. Refuses: asking whether one is sure; `--dry-run` tells what would go.

use serde::Serialize;
use tonnage_server::operator::{DeleteRepository, Holdings};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::{Names, Where};
use crate::offline;
use crate::output;

/// Arguments of `repo delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct RepoDelete {
    /// The repository
    #[arg(value_name = "NAME")]
    repository: String,
    /// Only tell what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Serialize)]
struct Deletion<'a> {
    repository: &'a str,
    deleted: bool,
    #[serde(flatten)]
    held: Holdings,
}

/// Deletes a repository, or tells what it holds.
pub(crate) fn run(arguments: &RepoDelete) -> Result<Exit, Failure> {
    let asked = DeleteRepository {
        repository: arguments.repository.clone(),
        dry_run: arguments.dry_run,
    };
    let held = offline::run(async |env| {
        Names::of(&arguments.place, env)?
            .delete_repository(&asked)
            .await
    })??;
    let repository = arguments.repository.as_str();
    if arguments.json {
        output::json(&Deletion {
            repository,
            deleted: !arguments.dry_run,
            held,
        })?;
        return Ok(Exit::Done);
    }
    let Holdings {
        tags,
        manifests,
        blobs,
    } = held;
    let verb = if arguments.dry_run {
        "would delete"
    } else {
        "deleted"
    };
    output::result(&format!(
        "{verb} {repository}: {tags} tag(s), {manifests} manifest(s), {blobs} blob(s)"
    ))?;
    Ok(Exit::Done)
}
