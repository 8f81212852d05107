//! `tonnage repo list`: the names of all repositories.
//!
//! Owns: the text and JSON forms. Refuses: holding more than a page of names.

use tonnage_server::operator::ListRepositories;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::{Names, Where};
use crate::offline;
use crate::output::List;

/// Arguments of `repo list`.
#[derive(Debug, clap::Args)]
pub(crate) struct RepoList {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// Lists repositories, in the order of bytes.
pub(crate) fn run(arguments: &RepoList) -> Result<Exit, Failure> {
    offline::run(async |env| {
        let mut names = Names::of(&arguments.place, env)?;
        let mut list = None;
        let mut asked = ListRepositories::default();
        loop {
            let page = names.repositories(&asked).await?;
            // The first page is there: what is printed from here on is a result.
            let list = list.get_or_insert_with(|| List::new(arguments.json, "repositories"));
            for name in &page.repositories {
                list.entry(name, || name.clone())?;
            }
            match page.repositories.into_iter().next_back() {
                Some(last) if page.more => asked.last = Some(last),
                _ => break,
            }
        }
        if let Some(list) = list {
            list.end()?;
        }
        Ok(Exit::Done)
    })?
}
