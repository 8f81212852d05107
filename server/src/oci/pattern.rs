//! Patterns that select repositories.
//!
//! Owns: [`RepositoryPattern`]: a name, everything below a prefix (`prefix/*`, at any depth), or everything (`*`).
//! Refuses: other wildcards, such as `a*b` and `**`, whose meaning is not obvious.

use std::fmt;
use std::str::FromStr;

use super::name::{InvalidName, RepositoryName};

/// A pattern for one repository, all below a prefix, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryPattern(Scope);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    All,
    Below(RepositoryName),
    One(RepositoryName),
}

/// The error that a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not a repository pattern: write a name (team/app), everything below one (team/*), or * for all"
)]
pub struct InvalidPattern {
    text: String,
    #[source]
    why: InvalidName,
}

impl RepositoryPattern {
    /// Returns the repository, if the pattern is a name.
    pub fn name(&self) -> Option<&RepositoryName> {
        match &self.0 {
            Scope::One(name) => Some(name),
            Scope::All | Scope::Below(_) => None,
        }
    }

    /// Returns the beginning of the names that the pattern selects. If it is not a name, every name that begins like
    /// this is selected.
    pub fn prefix(&self) -> String {
        match &self.0 {
            Scope::All => String::new(),
            Scope::Below(name) => format!("{name}/"),
            Scope::One(name) => name.as_str().to_owned(),
        }
    }

    /// Returns whether the pattern selects this repository. `prefix/*` does not select `prefix` itself.
    pub fn matches(&self, name: &RepositoryName) -> bool {
        match &self.0 {
            Scope::All => true,
            Scope::One(one) => one == name,
            Scope::Below(prefix) => name
                .as_str()
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.starts_with('/')),
        }
    }
}

impl FromStr for RepositoryPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = |why| InvalidPattern {
            text: text.chars().take(255).collect(),
            why,
        };
        Ok(Self(match text.strip_suffix("/*") {
            _ if text == "*" => Scope::All,
            Some(prefix) => Scope::Below(prefix.parse().map_err(invalid)?),
            None => Scope::One(text.parse().map_err(invalid)?),
        }))
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Scope::All => f.write_str("*"),
            Scope::Below(prefix) => write!(f, "{prefix}/*"),
            Scope::One(name) => write!(f, "{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a pattern selects exactly its repositories; `a/*` does not select `ab`.
    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "a/b", false),
            ("a", "ab", false),
            ("a/*", "a", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", true),
            ("a/*", "ab/c", false),
            ("a/b/*", "a/b/c", true),
            ("a/b/*", "a/c", false),
            ("*", "a/b", true),
        ] {
            let parsed: RepositoryPattern = pattern.parse().unwrap();
            assert_eq!(
                parsed.matches(&name.parse().unwrap()),
                expected,
                "{pattern} {name}"
            );
            assert_eq!(parsed.to_string(), pattern);
            if parsed.name().is_none() {
                assert_eq!(name.starts_with(&parsed.prefix()), expected);
            }
        }
        for bad in [
            "", "/*", "a/", "a*", "*/a", "a/**", "A", "a/*/b", "a,b", "**",
        ] {
            let refused = bad.parse::<RepositoryPattern>().unwrap_err().to_string();
            assert!(refused.contains("team/*"), "{bad}: {refused}");
        }
    }
}
