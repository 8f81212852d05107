//! The configuration file: TOML, with the line of every key and value.
//!
//! Owns: [`ConfigFile`], and errors of form: syntax, unknown keys, a value in place of a table. Values are read by
//! `reader`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::config::kind::Form;
use crate::config::mistake::{Mistake, Source, nearest};
use crate::config::reader::{Given, OptionInfo, Reader};

/// Largest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration file in memory.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    text: String,
}

/// The types of values that both TOML and options have.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "write a string, a whole number, true, false, or an array of strings"
)]
enum Written {
    Text(String),
    Number(i64),
    Switch(bool),
    List(Vec<String>),
}

impl ConfigFile {
    /// Reads the file at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Mistake> {
        let text = std::fs::metadata(path).and_then(|found| {
            if found.is_file() && found.len() <= FILE_BYTES_MAX {
                return std::fs::read_to_string(path);
            }
            let what = format!("it is not a file of at most {FILE_BYTES_MAX} bytes");
            Err(std::io::Error::other(what))
        });
        text.map(|text| Self::new(path, text)).map_err(|error| {
            let source = Self::new(path, "").source(None);
            Mistake::new(&source, format!("cannot be read: {error}"))
        })
    }

    /// Creates a file with this text.
    pub(super) fn new(path: &Path, text: impl Into<String>) -> Self {
        Self {
            path: path.to_path_buf(),
            text: text.into(),
        }
    }

    /// Returns the line at which a span begins.
    fn source(&self, span: Option<Range<usize>>) -> Source {
        let before = span.and_then(|span| self.text.get(..span.start));
        Source::File {
            path: self.path.clone(),
            line: before.map(|before| 1 + before.matches('\n').count()),
        }
    }

    /// Passes the values of options to `reader`.
    pub(super) fn read(&self, known: &[OptionInfo], reader: &mut Reader) {
        let (document, errors) = DeTable::parse_recoverable(&self.text);
        for error in errors {
            let source = self.source(error.span());
            reader.mistakes.push(Mistake::new(&source, error.message()));
        }
        self.read_table("", document.into_inner(), known, reader);
    }

    /// Reads one table, whose keys begin with `prefix`: empty, or ending in a dot.
    fn read_table(
        &self,
        prefix: &str,
        table: DeTable<'_>,
        known: &[OptionInfo],
        reader: &mut Reader,
    ) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let source = self.source(Some(name.span()));
            let section = format!("{key}.");
            let is_section = known.iter().any(|option| option.key.starts_with(&section));
            let what = if let Some(option) = known.iter().find(|option| option.key == key) {
                let key = option.key;
                match text_of(value, option.form) {
                    Ok(text) => {
                        reader.given.push(Given { key, source, text });
                        continue;
                    }
                    Err(why) => format!("{key}: {why}"),
                }
            } else if !is_section {
                unknown(&key, known)
            } else if let DeValue::Table(inner) = value.into_inner() {
                self.read_table(&section, inner, known, reader);
                continue;
            } else {
                format!("`{key}` is a table; write [{key}] and its options below it")
            };
            reader.mistakes.push(Mistake::new(&source, what));
        }
    }
}

/// Returns a value as it would be written in a variable.
fn text_of(value: Spanned<DeValue<'_>>, form: Form) -> Result<String, String> {
    match Written::deserialize(ValueDeserializer::from(value)) {
        Ok(Written::Text(text)) => Ok(text),
        Ok(Written::Number(number)) => Ok(number.to_string()),
        Ok(Written::Switch(on)) => Ok(on.to_string()),
        Ok(Written::List(entries)) if form == Form::List => Ok(entries.join(",")),
        Ok(Written::List(_)) => Err("an array; write one value".to_owned()),
        Err(error) => Err(error.message().to_owned()),
    }
}

/// Describes an unknown key, with an option of the same name in another table or the most similar key.
fn unknown(key: &str, known: &[OptionInfo]) -> String {
    let keys = || known.iter().map(|option| option.key);
    let name = |key: &str| key.rsplit('.').next().map(str::to_owned);
    let tables = keys().filter_map(|key| key.split_once('.').map(|(table, _)| table));
    let tables = tables.filter(|_| !key.contains('.'));
    let misplaced = keys().find(|known| name(known) == name(key));
    match misplaced.or_else(|| nearest(key, keys().chain(tables))) {
        Some(meant) => format!("unknown option `{key}`; did you mean `{meant}`?"),
        None => format!("unknown option `{key}`; `tonnage config show` lists all options"),
    }
}
