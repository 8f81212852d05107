//! Scopes of tokens.
//!
//! Owns: [`Scope`] with its grammar (distribution's "Token Scope Documentation"), and [`TokenScope`], what a token
//! covers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::access::Permission;
use crate::oci::RepositoryName;

/// Most actions of a scope that are looked at; there are four.
const ACTIONS_MAX: usize = 16;

/// A resource with the actions on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the resource.
    pub name: String,
    /// The actions.
    pub actions: Vec<String>,
    /// The repository of that name for which a token was issued; such a token is not for a later one of the same name.
    /// `None` if there was none: then it is for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
}

/// The error that a text is not a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is TYPE:NAME:ACTION,ACTION, such as repository:team/app:pull,push")]
pub struct InvalidScope;

impl FromStr for Scope {
    type Err = InvalidScope;

    /// Parses a scope. A name may contain colons, so it is what is between the first and the last one.
    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let (kind, rest) = text.split_once(':').ok_or(InvalidScope)?;
        let (name, actions) = rest.rsplit_once(':').ok_or(InvalidScope)?;
        // A class, as in `repository(plugin)`, has no meaning here.
        let kind = kind.split('(').next().unwrap_or_default();
        if kind.is_empty() || name.is_empty() {
            return Err(InvalidScope);
        }
        let actions = actions.split(',').filter(|action| !action.is_empty());
        Ok(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions: actions.take(ACTIONS_MAX).map(str::to_owned).collect(),
            incarnation: None,
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

impl Scope {
    /// Returns the scope that a request with this permission needs, for a challenge; `None` if any token will do.
    pub(in crate::access) fn of(permission: Permission<'_>) -> Option<Self> {
        let (kind, name, action) = needed(permission)?;
        // Who pushes asks first what is there.
        let actions = match action {
            "push" => &["pull", "push"][..],
            _ => &[action],
        };
        Some(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions: actions.iter().map(ToString::to_string).collect(),
            incarnation: None,
        })
    }

    /// Returns the part of the scope that may be granted, as `has` says of each permission; `None` if that is nothing.
    pub(in crate::access) fn granted(
        self,
        may_list: bool,
        has: impl Fn(Permission<'_>) -> bool,
    ) -> Option<Self> {
        let actions: Vec<String> = match &*self.kind {
            "registry" if self.name == "catalog" && may_list => {
                let all = self.actions.iter().filter(|action| *action == "*");
                all.take(1).cloned().collect()
            }
            "repository" => {
                let name: RepositoryName = self.name.parse().ok()?;
                let all = self.actions.iter().any(|action| action == "*");
                let possible = [
                    ("pull", Permission::Pull(&name)),
                    ("push", Permission::Push(&name)),
                    ("delete", Permission::Delete(&name)),
                ];
                let wanted = possible.into_iter().filter(|(action, _)| {
                    all || self.actions.iter().any(|wanted| wanted == action)
                });
                wanted
                    .filter(|(_, permission)| has(*permission))
                    .map(|(action, _)| action.to_owned())
                    .collect()
            }
            _ => return None,
        };
        (!actions.is_empty()).then_some(Self { actions, ..self })
    }
}

/// What a token covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenScope(Vec<Scope>);

impl TokenScope {
    pub(super) fn new(scopes: Vec<Scope>) -> Self {
        Self(scopes)
    }

    /// Returns the repository of this name for which the token was issued; `None` if it is for any.
    pub(crate) fn incarnation(&self, name: &RepositoryName) -> Option<u64> {
        let of_name = |scope: &&Scope| scope.kind == "repository" && scope.name == name.as_str();
        let mut scopes = self.0.iter().filter(of_name);
        scopes.find_map(|scope| scope.incarnation)
    }

    /// Returns whether the token is for this permission.
    pub(in crate::access) fn covers(&self, permission: Permission<'_>) -> bool {
        let Some((kind, name, action)) = needed(permission) else {
            return true;
        };
        self.0.iter().any(|scope| {
            scope.kind == kind
                && scope.name == name
                && scope.actions.iter().any(|granted| granted == action)
        })
    }
}

/// Returns the type, the name and the action of the scope that a permission needs; `None` if any token will do.
fn needed(permission: Permission<'_>) -> Option<(&'static str, &str, &'static str)> {
    Some(match permission {
        Permission::Ping => return None,
        Permission::ListRepositories | Permission::See(_) => ("registry", "catalog", "*"),
        Permission::Pull(name) => ("repository", name.as_str(), "pull"),
        Permission::Push(name) | Permission::Overwrite(name, _) => {
            ("repository", name.as_str(), "push")
        }
        Permission::Delete(name) | Permission::Untag(name, _) => {
            ("repository", name.as_str(), "delete")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Right;

    /// Guards: the grammar: the type ends at the first colon, the actions begin after the last; and what is granted is
    /// the part that is asked for and allowed.
    #[test]
    fn scopes_are_read_and_cut() {
        use Right::{Delete, Pull, Push};
        let parse = |text: &str| text.parse::<Scope>();
        let plain = parse("repository:localhost:5000/a/b:pull,push").unwrap();
        assert_eq!(plain.name, "localhost:5000/a/b");
        assert_eq!(plain.to_string(), "repository:localhost:5000/a/b:pull,push");
        assert_eq!(
            parse("repository(plugin):a:pull").unwrap().kind,
            "repository"
        );
        for wrong in [
            "",
            "repository",
            "repository:a",
            ":a:pull",
            "repository::pull",
        ] {
            assert_eq!(parse(wrong), Err(InvalidScope), "{wrong}");
        }
        let granted = |text: &str, rights: &[Right]| {
            let has = |permission: Permission<'_>| {
                Right::needed(permission).is_some_and(|(right, _)| rights.contains(&right))
            };
            parse(text)
                .unwrap()
                .granted(false, has)
                .map(|scope| scope.to_string())
        };
        for (text, rights, expected) in [
            (
                "repository:a:pull,push",
                &[Pull][..],
                Some("repository:a:pull"),
            ),
            (
                "repository:a:pull",
                &[Pull, Push],
                Some("repository:a:pull"),
            ),
            (
                "repository:a:*",
                &[Pull, Delete],
                Some("repository:a:pull,delete"),
            ),
            ("repository:a:push", &[Pull], None),
            ("repository:a:fly", &[Pull], None),
            ("repository:A:pull", &[Pull], None),
            ("registry:catalog:*", &[Pull], None),
            ("other:a:pull", &[Pull], None),
        ] {
            assert_eq!(granted(text, rights).as_deref(), expected, "{text}");
        }
        let catalog = parse("registry:catalog:*").unwrap();
        assert!(catalog.granted(true, |_| false).is_some());
    }

    /// Guards: a token covers exactly what it names.
    #[test]
    fn tokens_cover_what_they_name() {
        let scope = TokenScope::new(vec!["repository:a:pull".parse().unwrap()]);
        let [a, b] = ["a", "b"].map(|name| name.parse::<RepositoryName>().unwrap());
        assert!(scope.covers(Permission::Pull(&a)) && scope.covers(Permission::Ping));
        for other in [
            Permission::Pull(&b),
            Permission::Push(&a),
            Permission::Delete(&a),
            Permission::ListRepositories,
        ] {
            assert!(!scope.covers(other), "{other:?}");
        }
    }
}
