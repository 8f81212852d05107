//! `tonnage repo list`: prints the names of all repositories.
//!
//! Owns: the text and JSON forms. Refuses: holding more than a page of names.

use tonnage_server::admin::ListRepositories;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::List;
use crate::target::{Target, TargetArguments};

/// Arguments of `repo list`.
#[derive(Debug, clap::Args)]
pub(crate) struct RepoList {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

/// Lists repositories, in the order of bytes.
pub(crate) fn run(arguments: &RepoList) -> Result<Exit, Failure> {
    let mut target = Target::find(&arguments.target)?;
    let mut request = ListRepositories::default();
    // Entries are printed page by page, so the first page is printed before the last is read.
    let mut page = target.ask(request.clone())?;
    let mut list = List::new(arguments.json, "repositories");
    loop {
        for name in &page.repositories {
            list.entry(name, || name.clone())?;
        }
        match page.repositories.pop() {
            Some(last) if page.more => request.last = Some(last),
            _ => break,
        }
        page = target.ask(request.clone())?;
    }
    list.end()?;
    Ok(Exit::Done)
}
