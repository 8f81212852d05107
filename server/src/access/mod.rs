//! Who may do what.
//!
//! Owns: the [`Gate`] between a request and the use cases, and [`Authorized`], the proof of its permission. An
//! [`Authenticator`] determines who sends a request, and a [`Policy`] decides what they may do.
//! Refuses: HTTP statuses, and the place of credentials in a request.
//!
//! Invariant: an [`Authorized`] exists only because a [`Gate`] asked its policy about that very action. Use cases take
//! the repository from it, so they act on exactly what was allowed.

mod api_keys;
mod authentication;
mod control;
mod credential;
mod credentials;
mod decision;
mod error;
mod external_tokens;
#[cfg(feature = "fuzz-entry")]
pub(crate) mod fuzz_entry;
mod key_sets;
mod login;
mod own_file;
mod policy;
mod provenance;
mod reloaded;
mod rules;
mod tokens;
mod users;
mod workloads;

use std::sync::Arc;

use http::request::Parts;

pub use self::api_keys::{
    ApiKey, ApiKeySecret, InvalidKeyScope, KeyOwner, KeyScope, NewApiKey, OwnKeys,
};
pub use self::authentication::{Anonymous, Authenticator, Caller, Challenge};
pub use self::control::{AccessControl, AccessOptions, TokenIssuer};
pub use self::credential::Credential;
pub(crate) use self::credentials::TOKEN_PATH;
pub use self::decision::Decision;
pub use self::error::AccessError;
pub use self::policy::{
    Action, Delete, GrantAll, ListRepositories, Overwrite, Permission, Ping, Policy, Pull, Push,
    See, Untag, Verdict,
};
pub use self::provenance::{PROVENANCE_BYTES_MAX, Provenance};
pub use self::rules::{AccessRules, Reason, Right, Subject};
#[cfg(feature = "fuzz-entry")]
pub use self::tokens::fuzz_entry::FuzzedTokens;
pub use self::tokens::{InvalidScope, IssuedToken, Scope, TokenScope};
pub use self::users::{CallerName, InvalidUserName, OwnUsers, UserEntry, UserName};
use crate::oci::RepositoryName;
pub use crate::transport::front_end::ConnectionFacts;
use crate::wall_clock::now_unix_s;

/// A request and its sender.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requester {
    /// Who sends the request.
    pub caller: Caller,
    /// Id of the request, for logs and the journal.
    pub request_id: String,
}

/// Proof that the policy granted `action` to the sender of a request.
#[derive(Debug, Clone)]
pub struct Authorized<A> {
    action: A,
    requester: Requester,
}

impl<A> Authorized<A> {
    /// Returns the action that was granted.
    pub fn action(&self) -> &A {
        &self.action
    }

    /// Returns the request and the caller to whom the action was granted.
    pub fn requester(&self) -> &Requester {
        &self.requester
    }
}

impl Authorized<Pull> {
    /// Returns the repository that may be read.
    pub fn repository(&self) -> &RepositoryName {
        &self.action.0
    }
}
impl Authorized<Push> {
    /// Returns the repository that may be added to.
    pub fn repository(&self) -> &RepositoryName {
        &self.action.0
    }
}
impl Authorized<Delete> {
    /// Returns the repository that may be deleted from.
    pub fn repository(&self) -> &RepositoryName {
        &self.action.0
    }
}

/// Why there is no [`Authorized`]. The message is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Credentials are missing or invalid.
    #[error("credentials are required")]
    Unauthenticated(Challenge),
    /// These credentials are not enough.
    #[error("these credentials do not allow this")]
    Denied,
    /// The authenticator or the policy could not decide, for example because it asks another server.
    #[error("the registry could not check the credentials; try again")]
    Unavailable,
}

/// The only source of [`Authorized`] values.
#[derive(Debug, Clone)]
pub struct Gate {
    authenticator: Arc<dyn Authenticator>,
    policy: Arc<dyn Policy>,
}

impl Gate {
    /// Creates a gate that asks these two.
    pub fn new(authenticator: Arc<dyn Authenticator>, policy: Arc<dyn Policy>) -> Self {
        Self {
            authenticator,
            policy,
        }
    }

    /// Asks the authenticator who sends the request with this head.
    pub fn authenticate<'a>(
        &'a self,
        head: &'a Parts,
        connection: &'a ConnectionFacts,
    ) -> Decision<'a, Result<Caller, Refused>> {
        self.authenticator.authenticate(head, connection)
    }

    /// Returns the refusal of a request that needs other credentials for `permission`.
    pub fn challenge(&self, permission: Permission<'_>) -> Refused {
        Refused::Unauthenticated(self.authenticator.challenge(permission))
    }

    /// Asks the policy whether it would grant `action`.
    pub async fn grants(&self, requester: &Requester, action: &impl Action) -> bool {
        let verdict = self.policy.decide(&requester.caller, action.permission());
        verdict.wait().await == Ok(Verdict::Granted)
    }

    /// Returns whether the policy grants `permission` at once. If not, it may still do so later.
    pub fn grants_at_once(&self, caller: &Caller, permission: Permission<'_>) -> bool {
        let verdict = self.policy.decide(caller, permission);
        matches!(verdict, Decision::Ready(Verdict::Granted))
    }

    /// Asks the policy whether the sender of a request may do `action`.
    pub async fn authorize<A: Action>(
        &self,
        requester: &Requester,
        action: A,
    ) -> Result<Authorized<A>, Refused> {
        let permission = action.permission();
        let verdict = self.policy.decide(&requester.caller, permission);
        match verdict.wait().await? {
            Verdict::Granted => Ok(Authorized {
                action,
                requester: requester.clone(),
            }),
            Verdict::Unauthenticated => Err(self.challenge(action.permission())),
            Verdict::Denied => Err(Refused::Denied),
            Verdict::Unavailable => Err(Refused::Unavailable),
        }
    }
}
