//! Who may do what.
//!
//! Owns: [`Action`]s, the [`Policy`], and [`Authorized`], the proof that the policy granted an action.
//! Refuses: authentication (who the caller is) and HTTP.
//!
//! Invariant: an [`Authorized`] exists only because a [`Gate`] asked its policy about that very action. Use
//! cases take the repository from it, so what was allowed is what is done.

use std::fmt::Debug;
use std::sync::Arc;

use crate::oci::RepositoryName;

/// Who sends a request, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Authenticated subject; empty if there is none.
    pub subject: String,
    /// Id of the request, for logs and the journal.
    pub request: String,
}

/// What a policy decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission<'a> {
    /// See that this is a registry.
    Ping,
    /// List the names of all repositories.
    ListRepositories,
    /// Read a repository: blobs, manifests, tags, referrers.
    Pull(&'a RepositoryName),
    /// Add to a repository.
    Push(&'a RepositoryName),
    /// Delete from a repository.
    Delete(&'a RepositoryName),
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
}

/// Decides who may do what. It is pure, so that a request may ask about more than one repository.
pub trait Policy: Send + Sync + Debug {
    /// Whether `caller` has `permission`.
    fn decide(&self, caller: &Caller, permission: Permission<'_>) -> Verdict;
}

/// Grants everything to everybody: for a registry on loopback.
#[derive(Debug, Clone, Copy)]
pub struct GrantAll;

impl Policy for GrantAll {
    fn decide(&self, _: &Caller, _: Permission<'_>) -> Verdict {
        Verdict::Granted
    }
}

/// An action that needs a permission.
pub trait Action: Debug {
    /// The permission that it needs.
    fn permission(&self) -> Permission<'_>;
}

/// Sees that this is a registry.
#[derive(Debug, Clone)]
pub struct Ping;
/// Lists the names of all repositories.
#[derive(Debug, Clone)]
pub struct ListRepositories;
/// Reads this repository.
#[derive(Debug, Clone)]
pub struct Pull(pub RepositoryName);
/// Adds to this repository.
#[derive(Debug, Clone)]
pub struct Push(pub RepositoryName);
/// Deletes from this repository.
#[derive(Debug, Clone)]
pub struct Delete(pub RepositoryName);

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

/// Proof that the policy granted `action` to `caller`.
#[derive(Debug, Clone)]
pub struct Authorized<A> {
    action: A,
    caller: Caller,
}

impl<A> Authorized<A> {
    /// What was granted.
    pub fn action(&self) -> &A {
        &self.action
    }

    /// To whom it was granted.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Authorized<Pull> {
    /// The repository that may be read.
    pub fn repository(&self) -> &RepositoryName {
        &self.action.0
    }
}
impl Authorized<Push> {
    /// The repository that may be added to.
    pub fn repository(&self) -> &RepositoryName {
        &self.action.0
    }
}
impl Authorized<Delete> {
    /// The repository that may be deleted from.
    pub fn repository(&self) -> &RepositoryName {
        &self.action.0
    }
}

/// Why there is no [`Authorized`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There are no credentials.
    Unauthenticated,
    /// These credentials are not enough.
    Denied,
}

/// The only maker of [`Authorized`] values.
#[derive(Debug, Clone)]
pub struct Gate {
    policy: Arc<dyn Policy>,
}

impl Gate {
    /// A gate that asks `policy`.
    pub fn new(policy: Arc<dyn Policy>) -> Self {
        Self { policy }
    }

    /// Asks the policy whether `caller` may do `action`.
    pub fn authorize<A: Action>(
        &self,
        caller: &Caller,
        action: A,
    ) -> Result<Authorized<A>, Refused> {
        match self.policy.decide(caller, action.permission()) {
            Verdict::Granted => Ok(Authorized {
                action,
                caller: caller.clone(),
            }),
            Verdict::Unauthenticated => Err(Refused::Unauthenticated),
            Verdict::Denied => Err(Refused::Denied),
        }
    }
}
