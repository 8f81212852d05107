//! `tonnage tag delete`: tags, all or none.
//!
//! Owns: what is said about them. Refuses: deleting manifests; those stay, and can be tagged again by digest.

use serde::Serialize;
use tonnage_server::operator::DeleteTags;

use super::tag_list::Shown;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::{Names, Where};
use crate::offline;
use crate::output;

/// Arguments of `tag delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct TagDelete {
    /// The repository
    #[arg(value_name = "NAME")]
    repository: String,
    /// Its tags
    #[arg(value_name = "TAG", required = true, num_args = 1..=1000)]
    tags: Vec<String>,
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
    tags: Vec<Shown<'a>>,
}

/// Deletes tags, or tells what they point at.
pub(crate) fn run(arguments: &TagDelete) -> Result<Exit, Failure> {
    let asked = DeleteTags {
        repository: arguments.repository.clone(),
        tags: arguments.tags.clone(),
        dry_run: arguments.dry_run,
    };
    let tags =
        offline::run(async |env| Names::of(&arguments.place, env)?.delete_tags(&asked).await)??;
    let shown: Vec<Shown<'_>> = tags.iter().map(Shown::from).collect();
    let deleted = Deletion {
        repository: &arguments.repository,
        deleted: !arguments.dry_run,
        tags: shown,
    };
    if arguments.json {
        output::json(&deleted)?;
        return Ok(Exit::Done);
    }
    let verb = if arguments.dry_run {
        "would delete"
    } else {
        "deleted"
    };
    for tag in &deleted.tags {
        output::result(&format!("{verb} {}", tag.line()))?;
    }
    Ok(Exit::Done)
}
