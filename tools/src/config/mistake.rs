//! Errors in a configuration, with their places.
//!
//! Owns: [`Source`], [`Mistake`], and the suggestion of a known name for an unknown one.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// The source of a value, in ascending precedence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(crate) enum Source {
    /// The default.
    Default,
    /// The configuration file.
    File {
        /// Its path as given.
        path: PathBuf,
        /// Line, from 1; none for the whole file.
        line: Option<usize>,
    },
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// A flag.
    Flag {
        /// Its name without dashes.
        name: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => {
                write!(f, "{}", path.display())?;
                line.map_or(Ok(()), |line| write!(f, ":{line}"))
            }
            Self::Variable { name } => f.write_str(name),
            Self::Flag { name } => write!(f, "--{name}"),
        }
    }
}

/// One error in a configuration, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Mistake {
    /// Where it was written.
    pub(crate) at: Source,
    /// What is wrong and what to write instead.
    pub(crate) what: String,
}

impl Mistake {
    /// Creates an error at a place.
    pub(crate) fn new(at: &Source, what: impl Into<String>) -> Self {
        Self {
            at: at.clone(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// Returns the known name most similar to `unknown`, if at most a third of its letters differ.
pub(crate) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = unknown.len().max(3) / 3;
    known
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, name)| name)
}
