//! Mistakes in a configuration, in words.
//!
//! Owns: [`Mistake`], and the nearest known name to an unknown one.
//! Refuses: finding mistakes; who finds one says what is wrong.

use std::fmt;

use serde::Serialize;

use crate::config::source::Source;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Mistake {
    /// Where it was written.
    pub(crate) at: Source,
    /// What is wrong and what to write instead.
    pub(crate) what: String,
}

impl Mistake {
    /// A mistake at a place.
    pub(crate) fn new(at: Source, what: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// The known name closest to `unknown`, if it is close enough to be meant.
pub(crate) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may differ; beyond that a suggestion misleads.
    let most = unknown.len().max(3) / 3;
    known
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a slip of the finger finds its name, and a strange word finds nothing.
    #[test]
    fn only_a_near_name_is_suggested() {
        let known = || ["listen", "admin_listen", "data"].into_iter();
        assert_eq!(nearest("lsiten", known()), Some("listen"));
        assert_eq!(nearest("listne", known()), Some("listen"));
        assert_eq!(nearest("replicas", known()), None);
        assert_eq!(nearest("", known()), None);
    }
}
