//! Who sends a request.
//!
//! Owns: [`Caller`], the [`Authenticator`] that finds out, and the [`Challenge`] to those who have to prove it.
//! Refuses: what a caller may do; the policy decides.
//!
//! Invariant: a caller comes from an authenticator alone. Neither a name in a request nor its id makes one.

use std::fmt::Debug;

use http::HeaderValue;
use http::request::Parts;

use super::{Decision, Permission, Refused};
use crate::transport::front_end::ConnectionFacts;

/// Who sends a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Authenticated subject; empty for an anonymous caller.
    pub subject: String,
}

/// How a client may authenticate: the value of `WWW-Authenticate` (RFC 9110 section 11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge(pub HeaderValue);

/// Finds out who sends a request.
pub trait Authenticator: Send + Sync + Debug {
    /// The sender of the request with this head on a connection with these facts. It is asked once for each request,
    /// before anything is done for it. Credentials that do not hold are refused with a challenge; a request without
    /// any has an anonymous caller.
    fn authenticate<'a>(
        &'a self,
        head: &'a Parts,
        connection: &'a ConnectionFacts,
    ) -> Decision<'a, Result<Caller, Refused>>;

    /// The challenge to a caller without credentials who needs `permission`.
    fn challenge(&self, permission: Permission<'_>) -> Challenge;
}

/// Takes every caller for anonymous and reads no credentials.
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
