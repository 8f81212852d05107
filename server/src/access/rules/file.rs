//! The file of access rules, in TOML.
//!
//! Owns: its format and its errors, which name the rule. An unknown key is an error: a right that is misspelt would
//! otherwise be missing silently.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;

use super::issuers::{self, IssuerTable, TokenServerTable};
use super::rule::{Rule, RulesByPattern, TagPattern};
use super::values::{OneOrMany, parse};
use super::{AccessRules, Right, Subject};
use crate::access::{CallerName, UserName};
use crate::oci::{RepositoryPattern, Tag};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    #[serde(default)]
    admins: Vec<String>,
    #[serde(default)]
    groups: BTreeMap<String, Vec<String>>,
    #[serde(default, rename = "rule")]
    rules: Vec<RuleTable>,
    #[serde(default, rename = "issuer")]
    issuers: Vec<IssuerTable>,
    token_service: Option<TokenServerTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    repositories: OneOrMany,
    #[serde(default)]
    pull: Vec<String>,
    #[serde(default)]
    push: Vec<String>,
    #[serde(default)]
    overwrite: Vec<String>,
    #[serde(default)]
    delete: Vec<String>,
    #[serde(default)]
    admin: Vec<String>,
    #[serde(default)]
    immutable_tags: Vec<String>,
}

impl FromStr for AccessRules {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let file: RulesFile = toml::from_str(text).map_err(|error| mistake(text, &error))?;
        let mut groups = BTreeMap::new();
        for (group, names) in file.groups {
            let group: UserName = parse(&group, "groups")?;
            let names = names.iter().map(|name| {
                let name: CallerName = parse(name, &format!("group {group}"))?;
                Ok(name.into())
            });
            groups.insert(group.to_string(), names.collect::<Result<_, String>>()?);
        }
        let mut all = Self {
            admins: subjects(&file.admins, &groups, "admins")?,
            rules: RulesByPattern::default(),
            groups,
            issuers: issuers::read(file.issuers)?,
            token_server: file.token_service.map(TokenServerTable::read).transpose()?,
        };
        // Else everyone who reaches the registry could do everything.
        if all.admins.iter().any(|who| matches!(who, Subject::Anyone)) {
            return Err("admins: anyone cannot be an admin".to_owned());
        }
        for table in file.rules {
            all.add(table)?;
        }
        Ok(all)
    }
}

/// Describes a mistake without the line that it is in: a file with secrets may have been named instead of this one.
fn mistake(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(0, |before| before.matches('\n').count()) + 1;
    format!("line {line}: {}", error.message())
}

impl AccessRules {
    fn add(&mut self, table: RuleTable) -> Result<(), String> {
        let patterns = table.repositories.into_vec();
        if patterns.is_empty() {
            return Err("rule: repositories is empty".to_owned());
        }
        for text in &patterns {
            let place = format!("rule for {text}");
            let pattern: RepositoryPattern = parse(text, "rule: repositories")?;
            let given = [
                (Right::Pull, &table.pull),
                (Right::Push, &table.push),
                (Right::Overwrite, &table.overwrite),
                (Right::Delete, &table.delete),
                (Right::Admin, &table.admin),
            ];
            let rights = given.into_iter().map(|(right, names)| {
                let place = format!("{place}: {}", right.name());
                Ok((right, subjects(names, &self.groups, &place)?))
            });
            let rights: Vec<(Right, Vec<Subject>)> = rights.collect::<Result<_, String>>()?;
            let admins = rights.iter().filter(|(right, _)| *right == Right::Admin);
            if admins
                .flat_map(|(_, who)| who)
                .any(|who| *who == Subject::Anyone)
            {
                return Err(format!("{place}: admin: anyone cannot be an admin"));
            }
            let tags = table.immutable_tags.iter().map(|text| {
                let plain = text.strip_suffix('*').unwrap_or(text);
                // `*` alone is every tag.
                if !plain.is_empty() {
                    parse::<Tag>(plain, &format!("{place}: immutable_tags"))?;
                }
                Ok(TagPattern(text.clone()))
            });
            let immutable_tags = tags.collect::<Result<_, String>>()?;
            let is_first = self.rules.add(Rule {
                pattern,
                rights,
                immutable_tags,
            });
            if !is_first {
                return Err(format!(
                    "{place}: there is another one; write one rule for both"
                ));
            }
        }
        Ok(())
    }
}

fn subjects(
    names: &[String],
    groups: &BTreeMap<String, impl Sized>,
    place: &str,
) -> Result<Vec<Subject>, String> {
    let mut subjects = Vec::new();
    for name in names {
        let subject = parse(name, place)?;
        if let Subject::Group(group) = &subject
            && !groups.contains_key(group)
        {
            return Err(format!(
                "{place}: there is no group {group}; add it to [groups]"
            ));
        }
        subjects.push(subject);
    }
    Ok(subjects)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: every mistake is an error that names its place, so that none makes access wider or narrower silently.
    #[test]
    fn mistakes_are_errors() {
        for (text, expected) in [
            ("[[rule]]\nrepositories = 'a'\npul = ['x']", "pul"),
            ("[[rules]]\nrepositories = 'a'", "rules"),
            ("[[rule]]\npull = ['x']", "repositories"),
            ("[[rule]]\nrepositories = []", "repositories is empty"),
            ("[[rule]]\nrepositories = 'a*b'", "not a repository pattern"),
            (
                "[[rule]]\nrepositories = 'a'\npush = ['@x']",
                "rule for a: push: there is no group x",
            ),
            (
                "[[rule]]\nrepositories = 'a'\npush = ['x y']",
                "rule for a: push",
            ),
            (
                "[[rule]]\nrepositories = ['a', 'a']",
                "rule for a: there is another",
            ),
            (
                "[[rule]]\nrepositories = 'a'\nimmutable_tags = ['v?']",
                "immutable_tags",
            ),
            ("admins = ['anyone']", "cannot be an admin"),
            (
                "[[rule]]\nrepositories = 'a'\nadmin = ['anyone']",
                "rule for a: admin: anyone cannot",
            ),
            ("admins = [1]", "line 1: invalid type"),
            ("[groups]\nops = ['anyone']", "group ops"),
            (
                "[groups]\nops = ['spiffe://a']",
                "group ops: \"spiffe://a\" is no URI",
            ),
            ("[groups]\n'urn:a' = ['a']", "groups"),
            ("[groups]\nusers = ['a']", "groups"),
        ] {
            let error = text.parse::<AccessRules>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!("".parse(), Ok(AccessRules::default()));
    }
}
