//! Which repositories a rule is for.
//!
//! Owns: [`RepositoryPattern`]: a name, everything below a prefix (`prefix/*`, at any depth), or everything (`*`).
//! Refuses: other wildcards, so that nobody has to ask what `a*b` or `**` would mean.

use std::fmt;
use std::str::FromStr;

use super::name::{InvalidName, RepositoryName};

/// A repository, or all below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryPattern(Scope);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    All,
    Below(RepositoryName),
    One(RepositoryName),
}

/// The text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is no repository: write a name (team/app), everything below one (team/*), or * for all"
)]
pub struct InvalidPattern {
    text: String,
    #[source]
    why: InvalidName,
}

impl RepositoryPattern {
    /// Whether the rule is for this repository. `prefix/*` is not for `prefix` itself.
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

    /// Guards: a pattern is for what it says and nothing beside it, above all not for `ab` where it says `a/*`.
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
        }
        for bad in [
            "", "/*", "a/", "a*", "*/a", "a/**", "A", "a/*/b", "a,b", "**",
        ] {
            let refused = bad.parse::<RepositoryPattern>().unwrap_err().to_string();
            assert!(refused.contains("team/*"), "{bad}: {refused}");
        }
    }
}
