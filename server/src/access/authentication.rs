//! Who sends a request.
//!
//! Owns: [`Caller`], the [`Authenticator`] that determines it, and the [`Challenge`] to callers without credentials.
//! Refuses: what a caller may do, which the policy decides.
//!
//! An authenticator determines the [`Caller`] of every request. A name or an id in a request never does.

use std::fmt::Debug;
use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;

use super::{Credential, Decision, KeyScope, Permission, Provenance, Refused, TokenScope};
use crate::transport::front_end::ConnectionFacts;

/// Who sends a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Authenticated subject; empty for an anonymous caller.
    pub subject: String,
    /// Whether the list of users says that the caller may do everything.
    pub is_admin: bool,
    /// What the token of the request covers; `None` if it has none, so that nothing is restricted.
    pub scope: Option<Arc<TokenScope>>,
    /// What the API key of the request is limited to; `None` if it has none, or one without limits.
    pub key_scopes: Option<Arc<[KeyScope]>>,
    /// To what a token for the caller is bound; `None` for nothing, so that only an anonymous one is issued.
    pub credential: Option<Credential>,
    /// Where the credentials come from, if a build has them from another issuer.
    pub provenance: Option<Arc<Provenance>>,
}

impl Caller {
    /// Returns whether the request has no credentials.
    pub fn is_anonymous(&self) -> bool {
        self.subject.is_empty()
    }

    /// Returns whether the token of the request also grants what it covers, and rules do not decide about it.
    pub(super) fn is_granted_by_scope(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.grants())
    }
}

/// How a client may authenticate: the value of `WWW-Authenticate` (RFC 9110 section 11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge(pub HeaderValue);

/// Determines who sends a request.
pub trait Authenticator: Send + Sync + Debug {
    /// Returns the sender of the request with this head. It is called before any other work on a request. If the answer
    /// is pending, it is dropped before it is polled, and this is called again. So work begins, and attempts are
    /// counted, when the answer is polled. Invalid credentials are refused with a challenge. A request without
    /// credentials has an anonymous caller.
    fn authenticate<'a>(
        &'a self,
        head: &'a Parts,
        connection: &'a ConnectionFacts,
    ) -> Decision<'a, Result<Caller, Refused>>;

    /// Returns the challenge to a caller without credentials who needs `permission`.
    fn challenge(&self, permission: Permission<'_>) -> Challenge;
}

/// Treats every caller as anonymous and reads no credentials.
#[derive(Debug, Clone, Copy)]
pub struct Anonymous;

impl Authenticator for Anonymous {
    fn authenticate<'a>(
        &'a self,
        _: &'a Parts,
        _: &'a ConnectionFacts,
    ) -> Decision<'a, Result<Caller, Refused>> {
        Decision::Ready(Ok(Caller::default()))
    }

    fn challenge(&self, _: Permission<'_>) -> Challenge {
        Challenge(HeaderValue::from_static("Basic realm=\"Tonnage\""))
    }
}
