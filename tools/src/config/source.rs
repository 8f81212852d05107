//! Where a value came from.
//!
//! Owns: [`Source`], its rank, and the line numbers of a file.
//! Refuses: values themselves.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Origin of a value, least binding first: the derived order is the priority.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub(crate) enum Source {
    /// The table of options.
    Default,
    /// The file.
    File {
        /// Its path as given.
        path: PathBuf,
        /// Line, from 1; none where it is about the whole file.
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
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable { name } => f.write_str(name),
            Self::Flag { name } => write!(f, "--{name}"),
        }
    }
}

/// The line, from 1, on which byte `offset` of `text` lies.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: flag over variable over file over default.
    #[test]
    fn sources_rank_by_how_close_to_the_person_they_are() {
        let file = Source::File {
            path: PathBuf::from("z"),
            line: Some(9),
        };
        let variable = Source::Variable {
            name: "A".to_owned(),
        };
        let flag = Source::Flag {
            name: "a".to_owned(),
        };
        assert!(Source::Default < file && file < variable && variable < flag);
    }

    /// Guards: a line begins behind its newline.
    #[test]
    fn lines_count_from_one() {
        assert_eq!([0, 1, 2, 3].map(|at| line_of("a\n\nb", at)), [1, 1, 2, 3]);
    }
}
