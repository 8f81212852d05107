//! What a caller may do.
//!
//! Owns: [`Permission`]s, the [`Action`]s that need them, and the [`Policy`] that decides.

use std::fmt::Debug;

use super::{Caller, Decision};
use crate::oci::{RepositoryName, Tag};

/// What a policy decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission<'a> {
    /// See that this is a registry.
    Ping,
    /// List the names of all repositories.
    ListRepositories,
    /// Find a repository in the list of all that its reader may pull.
    See(&'a RepositoryName),
    /// Read a repository: blobs, manifests, tags, referrers.
    Pull(&'a RepositoryName),
    /// Add to a repository.
    Push(&'a RepositoryName),
    /// Delete from a repository.
    Delete(&'a RepositoryName),
    /// Point an existing tag at something else.
    Overwrite(&'a RepositoryName, &'a Tag),
    /// Delete a tag.
    Untag(&'a RepositoryName, &'a Tag),
}

impl Permission<'_> {
    /// Returns the repository that it is about.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Ping | Self::ListRepositories => None,
            Self::See(name)
            | Self::Pull(name)
            | Self::Push(name)
            | Self::Delete(name)
            | Self::Overwrite(name, _)
            | Self::Untag(name, _) => Some(name),
        }
    }
}

/// A policy's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed.
    Granted,
    /// Rejected because there are no credentials.
    Unauthenticated,
    /// Rejected with these credentials.
    Denied,
    /// Undecided, because what the policy asks cannot be reached. The policy logs why.
    Unavailable,
}

/// Decides who may do what. It changes nothing, so a request may ask about more than one repository.
pub trait Policy: Send + Sync + Debug {
    /// Decides whether `caller` has `permission`.
    fn decide<'a>(
        &'a self,
        caller: &'a Caller,
        permission: Permission<'a>,
    ) -> Decision<'a, Verdict>;
}

/// Grants everything to every caller. It is for a registry on loopback.
#[derive(Debug, Clone, Copy)]
pub struct GrantAll;

impl Policy for GrantAll {
    fn decide<'a>(&'a self, _: &'a Caller, _: Permission<'a>) -> Decision<'a, Verdict> {
        Decision::Ready(Verdict::Granted)
    }
}

/// An action that needs a permission.
pub trait Action: Debug + Send + Sync {
    /// Returns the permission that it needs.
    fn permission(&self) -> Permission<'_>;
}

/// Sees that this is a registry.
#[derive(Debug, Clone)]
pub struct Ping;
/// Lists the names of all repositories.
#[derive(Debug, Clone)]
pub struct ListRepositories;
/// Finds this repository in a list.
#[derive(Debug, Clone)]
pub struct See(pub RepositoryName);
/// Reads this repository.
#[derive(Debug, Clone)]
pub struct Pull(pub RepositoryName);
/// Adds to this repository.
#[derive(Debug, Clone)]
pub struct Push(pub RepositoryName);
/// Deletes from this repository.
#[derive(Debug, Clone)]
pub struct Delete(pub RepositoryName);

/// Points this tag of this repository at something else, if it exists.
#[derive(Debug, Clone)]
pub struct Overwrite(pub RepositoryName, pub Tag);

/// Deletes this tag of this repository.
#[derive(Debug, Clone)]
pub struct Untag(pub RepositoryName, pub Tag);

impl Action for Ping {
    fn permission(&self) -> Permission<'_> {
        Permission::Ping
    }
}
impl Action for ListRepositories {
    fn permission(&self) -> Permission<'_> {
        Permission::ListRepositories
    }
}
impl Action for See {
    fn permission(&self) -> Permission<'_> {
        Permission::See(&self.0)
    }
}
impl Action for Pull {
    fn permission(&self) -> Permission<'_> {
        Permission::Pull(&self.0)
    }
}
impl Action for Push {
    fn permission(&self) -> Permission<'_> {
        Permission::Push(&self.0)
    }
}
impl Action for Delete {
    fn permission(&self) -> Permission<'_> {
        Permission::Delete(&self.0)
    }
}
impl Action for Overwrite {
    fn permission(&self) -> Permission<'_> {
        Permission::Overwrite(&self.0, &self.1)
    }
}
impl Action for Untag {
    fn permission(&self) -> Permission<'_> {
        Permission::Untag(&self.0, &self.1)
    }
}
