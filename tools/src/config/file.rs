//! The configuration file: TOML with line numbers, walked against the table of options.
//!
//! Owns: reading keys and values with their lines, and every mistake of form: syntax, unknown keys, a value
//! where a table belongs.
//! Refuses: judging values; `resolve` does.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::config::diagnose::{Mistake, nearest};
use crate::config::options::{self, OPTIONS};
use crate::config::raw::{Given, Raw};
use crate::config::source::{Source, line_of};
use crate::config::value::Typed;

/// A file larger than this is not a configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the file at `path` into `raw`.
pub(crate) fn read(path: &Path, raw: &mut Raw) {
    match text_of(path) {
        Ok(text) => read_text(path, &text, raw),
        Err(what) => {
            let at = Source::File {
                path: path.to_path_buf(),
                line: None,
            };
            raw.mistakes.push(Mistake::new(at, what));
        }
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!(
            "is too large for a configuration ({} bytes)",
            metadata.len()
        ));
    }
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

/// As [`read`], from the file's text.
pub(crate) fn read_text(path: &Path, text: &str, raw: &mut Raw) {
    let mut walk = Walk {
        path: path.to_path_buf(),
        text,
        raw,
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map(|span| line_of(text, span.start));
        let at = Source::File {
            path: walk.path.clone(),
            line,
        };
        walk.raw.mistakes.push(Mistake::new(at, error.message()));
    }
    walk.table("", document.get_ref());
}

struct Walk<'a> {
    path: PathBuf,
    text: &'a str,
    raw: &'a mut Raw,
}

impl Walk<'_> {
    fn at(&self, offset: usize) -> Source {
        Source::File {
            path: self.path.clone(),
            line: Some(line_of(self.text, offset)),
        }
    }

    /// Walks one table whose keys begin with `prefix` (empty, or ending in a dot).
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let at = self.at(name.span().start);
            let is_table = OPTIONS
                .iter()
                .any(|option| option.key.starts_with(&format!("{key}.")));
            match (options::find(&key), value.get_ref()) {
                (Some(option), value) => {
                    self.raw.given.push(Given {
                        option,
                        typed: typed(value),
                        source: at,
                    });
                }
                (None, DeValue::Table(inner)) if is_table => self.table(&format!("{key}."), inner),
                (None, _) if is_table => {
                    let what = format!("\"{key}\" is a table: write [{key}] and its keys below");
                    self.raw.mistakes.push(Mistake::new(at, what));
                }
                (None, _) => self.raw.mistakes.push(Mistake::new(at, unknown(&key))),
            }
        }
    }
}

fn typed(value: &DeValue<'_>) -> Typed {
    match value {
        DeValue::String(text) => Typed::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => {
            Typed::Integer(number.as_str().to_owned())
        }
        DeValue::Integer(_) => Typed::Other("integer that is not decimal"),
        DeValue::Boolean(on) => Typed::Boolean(*on),
        DeValue::Float(_) => Typed::Other("float"),
        DeValue::Datetime(_) => Typed::Other("date"),
        DeValue::Array(entries) => {
            let texts = entries.iter().map(|entry| match typed(entry.get_ref()) {
                Typed::Text(text) => Some(text),
                Typed::Integer(_) | Typed::Boolean(_) | Typed::List(_) | Typed::Other(_) => None,
            });
            let texts = texts.collect::<Option<Vec<_>>>();
            texts.map_or(
                Typed::Other("array of other things than strings"),
                Typed::List,
            )
        }
        DeValue::Table(_) => Typed::Other("table"),
    }
}

/// What to say about a key that no option has: the nearest whole key, or the option whose last part it is.
fn unknown(key: &str) -> String {
    let keys = || OPTIONS.iter().map(|option| option.key);
    let tables = keys().filter_map(|known| known.split_once('.').map(|(table, _)| table));
    let last = key.rsplit('.').next().unwrap_or(key);
    let misplaced = keys().find(|known| known.rsplit('.').next() == Some(last));
    match misplaced.or_else(|| nearest(key, keys().chain(tables))) {
        Some(known) => format!("\"{key}\" is no option; the nearest is \"{known}\""),
        None => format!("\"{key}\" is no option; `tonnage config show` lists them all"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> (Vec<String>, Vec<String>) {
        let mut raw = Raw::default();
        read_text(Path::new("t.toml"), text, &mut raw);
        let given = raw
            .given
            .iter()
            .map(|g| format!("{}: {} {:?}", g.source, g.option.key, g.typed))
            .collect();
        (
            given,
            raw.mistakes.iter().map(ToString::to_string).collect(),
        )
    }

    /// Guards: keys in tables, dotted keys and inline tables are the same key, each with its line.
    #[test]
    fn keys_carry_their_lines() {
        let (given, mistakes) = read_all("listen = 'a'\n\n[log]\nlevel = 'b'\n");
        assert_eq!(
            given,
            [
                "t.toml:1: listen Text(\"a\")",
                "t.toml:4: log.level Text(\"b\")"
            ]
        );
        assert_eq!(mistakes, [""; 0]);
        assert_eq!(
            read_all("log.level = 'b'").0,
            ["t.toml:1: log.level Text(\"b\")"]
        );
        assert_eq!(
            read_all("log = { level = 'b' }").0,
            ["t.toml:1: log.level Text(\"b\")"]
        );
    }

    /// Guards: a mistake of form does not hide the next one.
    #[test]
    fn all_mistakes_of_form_are_reported_with_their_lines() {
        let text = "lisen = 'a'\nlog = 3\n[storage]\nread_budgte = 1\nx = \n";
        let (_, mistakes) = read_all(text);
        let has = |start: &str, word: &str| {
            mistakes
                .iter()
                .any(|m| m.starts_with(start) && m.contains(word))
        };
        assert!(
            has("t.toml:1:", "the nearest is \"listen\""),
            "{mistakes:?}"
        );
        assert!(has("t.toml:2:", "is a table"), "{mistakes:?}");
        assert!(has("t.toml:4:", "\"storage.read_budget\""), "{mistakes:?}");
        assert!(has("t.toml:5:", ""), "{mistakes:?}");
    }

    /// Guards: an option written in the wrong table is found by its own name.
    #[test]
    fn a_key_in_the_wrong_table_is_suggested_in_the_right_one() {
        let (_, mistakes) = read_all("upload_ttl = '1h'");
        assert!(
            mistakes
                .iter()
                .any(|m| m.contains("\"storage.upload_ttl\"")),
            "{mistakes:?}"
        );
    }
}
