//! `tonnage tag list`: prints the tags of a repository.
//!
//! Owns: the text and JSON forms. Refuses: holding more than a page of tags.

use serde::Serialize;
use tonnage_server::admin::{ListTags, TagEntry};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::List;
use crate::target::{Target, TargetArguments};
use crate::units::format_time;

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
    target: TargetArguments,
}

/// A tag in a result.
#[derive(Debug, Serialize)]
pub(crate) struct TagRow<'a> {
    tag: &'a str,
    digest: &'a str,
    /// RFC 3339 UTC.
    set: String,
}

impl<'a> From<&'a TagEntry> for TagRow<'a> {
    fn from(entry: &'a TagEntry) -> Self {
        Self {
            tag: &entry.tag,
            digest: &entry.digest,
            set: format_time(entry.set_unix_ms),
        }
    }
}

impl TagRow<'_> {
    /// Formats the tag as text. The name is last, because only its length varies.
    pub(crate) fn line(&self) -> String {
        format!("{}  {}  {}", self.set, self.digest, self.tag)
    }
}

/// Lists tags, in the order of bytes.
pub(crate) fn run(arguments: &TagList) -> Result<Exit, Failure> {
    let mut target = Target::find(&arguments.target)?;
    let mut request = ListTags {
        repository: arguments.repository.clone(),
        last: None,
    };
    // Entries are printed page by page, so the first page is printed before the last is read.
    let mut page = target.ask(request.clone())?;
    let mut list = List::new(arguments.json, "tags").with("repository", &arguments.repository);
    loop {
        for entry in &page.tags {
            let row = TagRow::from(entry);
            list.entry(&row, || row.line())?;
        }
        match page.tags.pop() {
            Some(last) if page.more => request.last = Some(last.tag),
            _ => break,
        }
        page = target.ask(request.clone())?;
    }
    list.end()?;
    Ok(Exit::Done)
}
