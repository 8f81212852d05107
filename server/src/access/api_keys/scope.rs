//! What an API key is limited to.
//!
//! Owns: [`KeyScope`]: a pattern of repositories with rights, written `PATTERN:RIGHT,RIGHT`. Refuses: whether the
//! user of the key has these rights, which the rules decide.

use std::fmt;
use std::str::FromStr;

use crate::access::{Permission, Right};
use crate::oci::RepositoryPattern;

/// Rights in the repositories of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyScope {
    pattern: RepositoryPattern,
    rights: Vec<Right>,
}

/// The error that a text is not the scope of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no scope of a key: write PATTERN:RIGHT,RIGHT, such as team/*:pull,push; rights are pull, push, overwrite and delete"
)]
pub struct InvalidKeyScope(String);

impl KeyScope {
    /// Returns whether the scope is for this permission.
    fn covers(&self, permission: Permission<'_>) -> bool {
        let Some((right, repository)) = Right::needed(permission) else {
            return true;
        };
        self.pattern.matches(repository) && self.rights.iter().any(|given| given.includes(right))
    }
}

/// Returns whether any scope is for this permission. A key without scopes is for everything that its user may do.
pub(in crate::access) fn cover(scopes: &[KeyScope], permission: Permission<'_>) -> bool {
    scopes.is_empty() || scopes.iter().any(|scope| scope.covers(permission))
}

impl FromStr for KeyScope {
    type Err = InvalidKeyScope;

    fn from_str(text: &str) -> Result<Self, InvalidKeyScope> {
        let invalid = || InvalidKeyScope(text.chars().take(255).collect());
        let (pattern, rights) = text.rsplit_once(':').ok_or_else(invalid)?;
        let rights = rights.split(',').map(|right| {
            // An admin is one in all repositories.
            let right = right.parse().ok().filter(|right| *right != Right::Admin);
            right.ok_or_else(invalid)
        });
        Ok(Self {
            pattern: pattern.parse().map_err(|_invalid| invalid())?,
            rights: rights.collect::<Result<_, _>>()?,
        })
    }
}

impl fmt::Display for KeyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rights: Vec<_> = self.rights.iter().map(|right| right.name()).collect();
        write!(f, "{}:{}", self.pattern, rights.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{RepositoryName, Tag};

    /// Guards: a key with scopes is for what one of them names, with the meaning that rights have in rules; one
    /// without is for everything.
    #[test]
    fn scopes_limit_keys() {
        let scopes = ["team/*:push", "open:pull,delete"].map(|text| text.parse().unwrap());
        let [app, open, other] =
            ["team/app", "open", "other"].map(|name| name.parse::<RepositoryName>().unwrap());
        let tag: Tag = "v1".parse().unwrap();
        for (permission, expected) in [
            (Permission::Ping, true),
            (Permission::ListRepositories, true),
            (Permission::Pull(&app), true),
            (Permission::Push(&app), true),
            (Permission::Overwrite(&app, &tag), false),
            (Permission::Delete(&app), false),
            (Permission::See(&open), true),
            (Permission::Push(&open), false),
            (Permission::Untag(&open, &tag), true),
            (Permission::Pull(&other), false),
        ] {
            assert_eq!(cover(&scopes, permission), expected, "{permission:?}");
            assert!(cover(&[], permission));
        }
        for wrong in ["", "a", "a:", "a:fly", "a:admin", "a*b:pull", ":pull"] {
            assert!(wrong.parse::<KeyScope>().is_err(), "{wrong}");
        }
        assert_eq!(scopes.map(|scope| scope.to_string())[1], "open:pull,delete");
    }
}
