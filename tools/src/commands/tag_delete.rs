//! `tonnage tag delete`: deletes tags, all or none.
//!
//! Owns: the text and JSON forms. Refuses: asking for confirmation; `--dry-run` prints what would be deleted.

use serde::Serialize;
use tonnage_server::admin::DeleteTags;

use super::tag_list::TagRow;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::target::{Target, TargetArguments};

/// Arguments of `tag delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct TagDelete {
    /// The repository
    #[arg(value_name = "NAME")]
    repository: String,
    /// Its tags
    #[arg(value_name = "TAG", required = true, num_args = 1..=1000)]
    tags: Vec<String>,
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
    tags: Vec<TagRow<'a>>,
}

/// Deletes tags, or prints what they point at.
pub(crate) fn run(arguments: &TagDelete) -> Result<Exit, Failure> {
    let found = Target::find(&arguments.target)?.ask(DeleteTags {
        repository: arguments.repository.clone(),
        tags: arguments.tags.clone(),
        dry_run: arguments.dry_run,
    })?;
    let deletion = Deletion {
        repository: &arguments.repository,
        deleted: !arguments.dry_run,
        tags: found.tags.iter().map(TagRow::from).collect(),
    };
    if arguments.json {
        output::json(&deletion)?;
        return Ok(Exit::Done);
    }
    let verb = if arguments.dry_run {
        "would delete"
    } else {
        "deleted"
    };
    for tag in &deletion.tags {
        output::result(&format!("{verb} {}", tag.line()))?;
    }
    Ok(Exit::Done)
}
