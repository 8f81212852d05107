//! The rule for a repository.
//!
//! Owns: [`Rule`], and finding the one with the longest pattern. A list of all repositories asks for every one of them,
//! so the number of rules does not matter.

use std::collections::HashMap;

use super::{Right, Subject};
use crate::oci::{RepositoryName, RepositoryPattern, Tag};

/// The rule for the repositories of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) pattern: RepositoryPattern,
    /// Who has which right.
    pub(super) rights: Vec<(Right, Vec<Subject>)>,
    pub(super) immutable_tags: Vec<TagPattern>,
}

/// All rules, by their patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RulesByPattern {
    /// Those for one repository, by its name.
    one: HashMap<String, Rule>,
    /// Those for all below a name, by that name; the one for all repositories has an empty name.
    below: HashMap<String, Rule>,
}

impl RulesByPattern {
    /// Adds a rule. Returns false if there is one of this pattern.
    pub(super) fn add(&mut self, rule: Rule) -> bool {
        let prefix = rule.pattern.prefix();
        let (rules, name) = if rule.pattern.name().is_some() {
            (&mut self.one, prefix)
        } else {
            (&mut self.below, prefix.trim_end_matches('/').to_owned())
        };
        rules.insert(name, rule).is_none()
    }

    /// Returns the rule for a repository: the one with the longest pattern.
    pub(super) fn of(&self, repository: &RepositoryName) -> Option<&Rule> {
        let name = repository.as_str();
        let above = name
            .rmatch_indices('/')
            .filter_map(|(end, _)| name.get(..end));
        let below = || above.chain([""]).find_map(|name| self.below.get(name));
        self.one.get(name).or_else(below)
    }
}

/// A pattern of tags: a tag, or the beginning of tags with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TagPattern(pub(super) String);

impl TagPattern {
    /// Returns whether the pattern selects this tag.
    pub(super) fn matches(&self, tag: &Tag) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => tag.as_str().starts_with(prefix),
            None => self.0 == tag.as_str(),
        }
    }
}
