//! Repository names.
//!
//! Owns: [`RepositoryName`] and the grammar of distribution-spec, "Pulling manifests".
//! Refuses: uppercase, empty components, everything that is ambiguous in a path or URL.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tonnage_engine::limits::REPOSITORY_NAME_BYTES_MAX;

/// The name of a repository: components of lowercase letters and digits, joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Arc<str>);

/// Why a string is not a repository name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Longer than the limit.
    #[error(
        "a repository name has at most {REPOSITORY_NAME_BYTES_MAX} characters, this one has {0}"
    )]
    TooLong(usize),
    /// Does not follow the grammar.
    #[error(
        "a repository name is lowercase letters and digits, separated inside a component by one of \
         '.', '_', '__' or dashes, and components by '/'"
    )]
    Grammar,
}

impl RepositoryName {
    /// Returns the name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() > REPOSITORY_NAME_BYTES_MAX {
            return Err(InvalidName::TooLong(text.len()));
        }
        if text.split('/').all(is_component) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName::Grammar)
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns whether the text matches `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().next_back()) else {
        return false;
    };
    if !word(first) || !word(last) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Guards: distribution-spec, "Pulling manifests", grammar of `<name>`.
    #[test]
    fn names_follow_the_grammar() {
        for good in [
            "a",
            "a/b",
            "library/ubuntu",
            "a.b",
            "a_b",
            "a__b",
            "a---b",
            "0/1/2",
            "a-b.c_d__e/f",
            "blobs/uploads",
            "tags/list",
        ] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a.", ".a", "a..b", "a___b", "a._b", "a.-b", "_a",
            "a_", "-a", "a-", "a b", "a%2fb", "a\0", "ä", "../a", "a/../b", "_catalog",
        ] {
            assert_eq!(
                bad.parse::<RepositoryName>(),
                Err(InvalidName::Grammar),
                "{bad:?}"
            );
        }
        let longest = "a".repeat(REPOSITORY_NAME_BYTES_MAX);
        assert!(longest.parse::<RepositoryName>().is_ok());
        assert_eq!(
            format!("{longest}a").parse::<RepositoryName>(),
            Err(InvalidName::TooLong(256))
        );
    }

    proptest! {
        /// Guards: no name makes the parser panic; an accepted name is printed unchanged.
        #[test]
        fn any_text_is_judged(text in "\\PC{0,40}|[a-z0-9._/-]{0,20}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
