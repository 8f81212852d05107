//! `tonnage tag list`: a repository's tags.
//!
//! Owns: the text and JSON forms. Refuses: holding more than a page of tags.

use serde::Serialize;
use tonnage_server::operator::{ListTags, TagEntry};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::{self, Names, Where};
use crate::offline;
use crate::output::List;

/// Arguments of `tag list`.
#[derive(Debug, clap::Args)]
pub(crate) struct TagList {
    /// The repository
    #[arg(value_name = "NAME")]
    repository: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// A tag as results show it.
#[derive(Debug, Serialize)]
pub(crate) struct Shown<'a> {
    tag: &'a str,
    digest: &'a str,
    /// RFC 3339 UTC.
    set: String,
}

impl<'a> From<&'a TagEntry> for Shown<'a> {
    fn from(entry: &'a TagEntry) -> Self {
        Self {
            tag: &entry.tag,
            digest: &entry.digest,
            set: names::time(entry.set_unix_ms),
        }
    }
}

impl Shown<'_> {
    /// As a line; the name last, since only its length varies.
    pub(crate) fn line(&self) -> String {
        format!("{}  {}  {}", self.set, self.digest, self.tag)
    }
}

/// Lists tags, in the order of bytes.
pub(crate) fn run(arguments: &TagList) -> Result<Exit, Failure> {
    offline::run(async |env| {
        let mut names = Names::of(&arguments.place, env)?;
        let mut list = None;
        let mut asked = ListTags {
            repository: arguments.repository.clone(),
            last: None,
        };
        loop {
            let page = names.tags(&asked).await?;
            let list = list.get_or_insert_with(|| {
                List::new(arguments.json, "tags").with("repository", &arguments.repository)
            });
            for entry in &page.tags {
                let shown = Shown::from(entry);
                list.entry(&shown, || shown.line())?;
            }
            match page.tags.into_iter().next_back() {
                Some(last) if page.more => asked.last = Some(last.tag),
                _ => break,
            }
        }
        if let Some(list) = list {
            list.end()?;
        }
        Ok(Exit::Done)
    })?
}
