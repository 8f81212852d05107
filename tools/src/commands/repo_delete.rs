//! `tonnage repo delete`: deletes a repository with everything in it.
//!
//! Owns: the text and JSON forms. Refuses: asking for confirmation; `--dry-run` prints what would be deleted.

use serde::Serialize;
use tonnage_server::admin::{DeleteRepository, RepositoryContent};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::target::{Target, TargetArguments};

/// Arguments of `repo delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct RepoDelete {
    /// The repository
    #[arg(value_name = "NAME")]
    repository: String,
    /// Only print what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

#[derive(Debug, Serialize)]
struct Deletion<'a> {
    repository: &'a str,
    deleted: bool,
    #[serde(flatten)]
    content: RepositoryContent,
}

/// Deletes a repository, or prints what it holds.
pub(crate) fn run(arguments: &RepoDelete) -> Result<Exit, Failure> {
    let content = Target::find(&arguments.target)?.ask(DeleteRepository {
        repository: arguments.repository.clone(),
        dry_run: arguments.dry_run,
    })?;
    let repository = arguments.repository.as_str();
    if arguments.json {
        output::json(&Deletion {
            repository,
            deleted: !arguments.dry_run,
            content,
        })?;
        return Ok(Exit::Done);
    }
    let RepositoryContent {
        tags,
        manifests,
        blobs,
    } = content;
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
