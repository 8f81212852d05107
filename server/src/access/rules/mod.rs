//! Access rules: who may do what in which repository.
//!
//! Owns: [`AccessRules`] and the decision by them. Refuses: who a caller is, and the file's format (`file`).
//!
//! Invariants: what no rule allows is denied. One rule decides about a repository: the one with the longest pattern.
//! The name of a user, a group or a repository has no meaning of its own.

mod current;
mod file;
mod issuers;
mod rule;
mod subjects;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

pub(super) use self::current::CurrentRules;
use self::rule::{Rule, RulesByPattern};
pub use self::subjects::Subject;
use super::tokens::TokenServer;
use super::workloads::Issuer;
use super::{Caller, Permission, Verdict};
use crate::oci::{RepositoryName, Tag};

/// What a rule allows to somebody. In this order, so that a later one includes those before it, but for `Delete`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Read.
    Pull,
    /// Add content and tags.
    Push,
    /// Point an existing tag at something else.
    Overwrite,
    /// Delete tags, manifests and blobs.
    Delete,
    /// Everything.
    Admin,
}

impl Right {
    /// All rights with their names.
    pub const ALL: [(&'static str, Self); 5] = [
        ("pull", Self::Pull),
        ("push", Self::Push),
        ("overwrite", Self::Overwrite),
        ("delete", Self::Delete),
        ("admin", Self::Admin),
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, right)| *right == self);
        found.map_or("", |(name, _)| name)
    }

    /// Returns whether who has `self` also has `other`.
    pub(super) fn includes(self, other: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Delete => other == Self::Delete,
            Self::Pull | Self::Push | Self::Overwrite => other <= self,
        }
    }
}

impl Right {
    /// Returns the right that a permission needs, and where; `None` if it is about no repository.
    pub(super) fn needed(permission: Permission<'_>) -> Option<(Self, &RepositoryName)> {
        Some(match permission {
            Permission::Ping | Permission::ListRepositories => return None,
            Permission::Pull(repository) | Permission::See(repository) => (Self::Pull, repository),
            Permission::Push(repository) => (Self::Push, repository),
            Permission::Overwrite(repository, _) => (Self::Overwrite, repository),
            Permission::Delete(repository) | Permission::Untag(repository, _) => {
                (Self::Delete, repository)
            }
        })
    }
}

impl FromStr for Right {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, right)| *right).ok_or(())
    }
}

/// All rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessRules {
    groups: BTreeMap<String, BTreeSet<String>>,
    admins: Vec<Subject>,
    rules: RulesByPattern,
    issuers: Vec<Issuer>,
    token_server: Option<TokenServer>,
}

/// A decision, and why it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Whether it is allowed.
    pub allowed: bool,
    /// For the operator.
    why: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl AccessRules {
    /// Decides whether `caller` has a right in a repository, and says which rule decided.
    pub fn explain(&self, caller: &Caller, right: Right, repository: &RepositoryName) -> Reason {
        let reason = |allowed, why: String| Reason { allowed, why };
        if self.is_admin(caller) {
            return reason(true, "an admin may do everything".to_owned());
        }
        let Some(rule) = self.rules.of(repository) else {
            return reason(false, format!("no rule is for {repository}"));
        };
        let pattern = &rule.pattern;
        match self.granted_by(rule, caller, right) {
            Some((by, subject)) => reason(
                true,
                format!("the rule for {pattern} gives {} to {subject}", by.name()),
            ),
            None => reason(
                false,
                format!("the rule for {pattern} does not give {}", right.name()),
            ),
        }
    }

    /// Decides whether `caller` may point a tag at something else, and says why.
    pub fn explain_overwrite(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Reason {
        if self.is_immutable(repository, tag) {
            return Reason {
                allowed: false,
                why: "the rule for it makes the tag immutable, for admins too".to_owned(),
            };
        }
        self.explain(caller, Right::Overwrite, repository)
    }

    /// Returns the issuers whose tokens are accepted.
    pub(super) fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Returns the other token service, if clients get tokens there.
    pub(super) fn token_server(&self) -> Option<&TokenServer> {
        self.token_server.as_ref()
    }

    /// Returns whether `caller` has a right in a repository.
    fn has(&self, caller: &Caller, right: Right, repository: &RepositoryName) -> bool {
        self.is_admin(caller)
            || self
                .rules
                .of(repository)
                .is_some_and(|rule| self.granted_by(rule, caller, right).is_some())
    }

    /// Decides about a permission.
    pub(super) fn decide(&self, caller: &Caller, permission: Permission<'_>) -> Verdict {
        if caller.is_granted_by_scope {
            // Whether the scope covers it is another question.
            let is_kept = self.keeps_tag(permission);
            return if is_kept {
                Verdict::Denied
            } else {
                Verdict::Granted
            };
        }
        let granted = match Right::needed(permission) {
            // A client learns from the answer to a ping whether it has to send credentials, so nobody is anonymous
            // there. A list has only what its reader may pull.
            None => !caller.is_anonymous(),
            Some((right, repository)) => {
                !self.keeps_tag(permission) && self.has(caller, right, repository)
            }
        };
        match granted {
            true => Verdict::Granted,
            false if caller.is_anonymous() => Verdict::Unauthenticated,
            false => Verdict::Denied,
        }
    }

    fn is_admin(&self, caller: &Caller) -> bool {
        caller.is_admin || self.admins.iter().any(|subject| self.is(caller, subject))
    }

    /// Returns whether a permission is to change a tag that nobody may change.
    fn keeps_tag(&self, permission: Permission<'_>) -> bool {
        match permission {
            Permission::Overwrite(repository, tag) | Permission::Untag(repository, tag) => {
                self.is_immutable(repository, tag)
            }
            Permission::Ping
            | Permission::ListRepositories
            | Permission::See(_)
            | Permission::Pull(_)
            | Permission::Push(_)
            | Permission::Delete(_) => false,
        }
    }

    /// Returns whether nobody may point this tag at something else.
    fn is_immutable(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        let rule = self.rules.of(repository);
        rule.is_some_and(|rule| {
            rule.immutable_tags
                .iter()
                .any(|pattern| pattern.matches(tag))
        })
    }

    /// Returns by which right, and as whom, `caller` has a right.
    fn granted_by<'a>(
        &self,
        rule: &'a Rule,
        caller: &Caller,
        right: Right,
    ) -> Option<(Right, &'a Subject)> {
        let giving = rule
            .rights
            .iter()
            .filter(|(given, _)| given.includes(right));
        giving
            .flat_map(|(given, subjects)| subjects.iter().map(|subject| (*given, subject)))
            .find(|(_, subject)| self.is(caller, subject))
    }

    fn is(&self, caller: &Caller, subject: &Subject) -> bool {
        match subject {
            Subject::Anyone => true,
            Subject::Users => !caller.is_anonymous(),
            Subject::User(name) => !caller.is_anonymous() && *name == caller.subject,
            Subject::Group(group) => self
                .groups
                .get(group)
                .is_some_and(|names| !caller.is_anonymous() && names.contains(&caller.subject)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> AccessRules {
        let text = r#"
            admins = ["root", "@ops"]
            [groups]
            ops = ["olga"]
            ci = ["runner", "builder"]
            [[rule]]
            repositories = "*"
            pull = ["users"]
            [[rule]]
            repositories = ["team/*", "shared"]
            pull = ["anyone"]
            push = ["@ci"]
            overwrite = ["alice"]
            immutable_tags = ["v*", "stable"]
            [[rule]]
            repositories = "team/secret/*"
            delete = ["bob"]
        "#;
        text.parse().unwrap()
    }

    fn caller(subject: &str) -> Caller {
        Caller {
            subject: subject.to_owned(),
            ..Caller::default()
        }
    }

    /// Guards: the longest pattern decides alone; rights include each other as documented; nobody else has any.
    #[test]
    fn the_longest_pattern_decides() {
        let rules = rules();
        let rights = |who: &str, repository: &str| {
            let repository = repository.parse().unwrap();
            let has = Right::ALL.iter().filter(|(_, right)| {
                let reason = rules.explain(&caller(who), *right, &repository);
                assert_eq!(reason.allowed, rules.has(&caller(who), *right, &repository));
                reason.allowed
            });
            has.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
        };
        for (who, repository, expected) in [
            ("", "other", ""),
            ("alice", "other", "pull"),
            ("", "team/app", "pull"),
            ("runner", "team/app", "pull push"),
            ("runner", "shared", "pull push"),
            ("runner", "shared/below", "pull"),
            ("alice", "team/app", "pull push overwrite"),
            ("runner", "team", "pull"),
            ("runner", "teams", "pull"),
            ("alice", "team/secret/x", ""),
            ("", "team/secret/x", ""),
            ("bob", "team/secret/x", "delete"),
            ("olga", "team/secret/x", "pull push overwrite delete admin"),
            ("root", "anything", "pull push overwrite delete admin"),
            // Names mean nothing.
            ("@ci", "team/app", "pull"),
            ("admin", "team/secret/x", ""),
            ("anyone", "team/secret/x", ""),
        ] {
            assert_eq!(rights(who, repository), expected, "{who} in {repository}");
        }
        let explained = rules.explain(&caller("runner"), Right::Pull, &"team/app".parse().unwrap());
        assert_eq!(
            explained.to_string(),
            "the rule for team/* gives pull to anyone"
        );
    }

    /// Guards: an immutable tag is not overwritten, also not by an admin; other tags are by those who may.
    #[test]
    fn immutable_tags_are_not_overwritten() {
        let rules = rules();
        let repository: RepositoryName = "team/app".parse().unwrap();
        for (who, tag, expected) in [
            ("alice", "latest", Verdict::Granted),
            ("alice", "v1", Verdict::Denied),
            ("olga", "stable", Verdict::Denied),
            ("olga", "stable2", Verdict::Granted),
            ("runner", "latest", Verdict::Denied),
            ("", "latest", Verdict::Unauthenticated),
        ] {
            let tag: Tag = tag.parse().unwrap();
            let permission = Permission::Overwrite(&repository, &tag);
            assert_eq!(
                rules.decide(&caller(who), permission),
                expected,
                "{who} {tag:?}"
            );
        }
    }

    /// Guards: without a file nobody but admins may do anything; everybody with credentials may ask for the version.
    #[test]
    fn without_rules_all_is_denied() {
        let rules = AccessRules::default();
        let repository = "a".parse().unwrap();
        let alice = caller("alice");
        let admin = Caller {
            is_admin: true,
            ..alice.clone()
        };
        let pull = Permission::Pull(&repository);
        for (who, permission, expected) in [
            (&alice, pull, Verdict::Denied),
            (&admin, pull, Verdict::Granted),
            (&caller(""), pull, Verdict::Unauthenticated),
            (&alice, Permission::Ping, Verdict::Granted),
            (&caller(""), Permission::Ping, Verdict::Unauthenticated),
            (&alice, Permission::ListRepositories, Verdict::Granted),
            (
                &caller(""),
                Permission::ListRepositories,
                Verdict::Unauthenticated,
            ),
            (&admin, Permission::ListRepositories, Verdict::Granted),
        ] {
            assert_eq!(
                rules.decide(who, permission),
                expected,
                "{who:?} {permission:?}"
            );
        }
    }
}
