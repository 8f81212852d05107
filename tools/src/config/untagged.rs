//! The option that says which repositories remove untagged manifests.
//!
//! Owns: [`UntaggedRule`] and how rules become the store's policy. Refuses: removing anything.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tonnage_engine::UntaggedPolicy;
use tonnage_server::oci::{RepositoryName, RepositoryPattern};

use crate::units::{format_duration, parse_duration};

/// One rule, written `PATTERN=DURATION` or `PATTERN=keep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UntaggedRule {
    pattern: RepositoryPattern,
    /// `None` keeps untagged manifests.
    after: Option<Duration>,
}

impl FromStr for UntaggedRule {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pattern, after) = text.split_once('=').ok_or(())?;
        Ok(Self {
            pattern: pattern.trim().parse().map_err(drop)?,
            after: match after.trim() {
                "keep" => None,
                after => Some(parse_duration(after).map_err(drop)?),
            },
        })
    }
}

impl fmt::Display for UntaggedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, after } = self;
        match after {
            None => write!(f, "{pattern}=keep"),
            Some(after) => write!(f, "{pattern}={}", format_duration(*after)),
        }
    }
}

/// Returns the policy of these rules. The first rule that matches a repository counts; without one it keeps untagged
/// manifests.
pub(crate) fn policy(rules: &[UntaggedRule]) -> UntaggedPolicy {
    if rules.iter().all(|rule| rule.after.is_none()) {
        return UntaggedPolicy::default();
    }
    let rules = rules.to_vec();
    UntaggedPolicy::new(move |name| {
        let name: RepositoryName = name.parse().ok()?;
        let rule = rules.iter().find(|rule| rule.pattern.matches(&name))?;
        rule.after
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the first rule that matches counts, and a repository without one keeps its manifests.
    #[test]
    fn the_first_rule_counts() {
        let rules = ["a/b=keep", "a/*=7d", "a/c=1h"].map(|rule| rule.parse().unwrap());
        let policy = policy(&rules);
        for (name, days) in [("a/b", None), ("a/c", Some(7)), ("a", None), ("b", None)] {
            let after = days.map(|days| Duration::from_hours(24 * days));
            assert_eq!(policy.removes_after(name), after, "{name}");
        }
        for bad in ["a", "a=", "=1h", "a=1", "A=1h", "a=never"] {
            assert_eq!(bad.parse::<UntaggedRule>(), Err(()), "{bad}");
        }
    }
}
