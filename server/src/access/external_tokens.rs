//! Tokens of another token service (distribution's token authentication), which the operator named.
//!
//! Owns: [`TokenServer`], and the verification of its tokens. Refuses: their keys (`key_sets`).
//!
//! Unlike the registry's own, such a token also grants: what it names is what its bearer may do, because the other
//! service knows its users, and rules here do not. Rules decide only which tags are immutable. It is not bound to the
//! repository that had a name when it was issued, because its issuer does not know it.
//!
//! Invariants: a subject is never taken for a user of this registry. One without a name may only pull, so that it
//! shares no upload with others. A token that was verified is verified again after five minutes, and when the operator
//! names another service.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::key_sets::{Expected, KeySets, KeySource, KeysUnknown};
use super::tokens::{LEEWAY, LIFETIME, RememberedTokens, Scope, TokenScope, VerifiedToken};
use super::{Caller, now_unix_s};

/// Longest name of a subject with its issuer, which the journal keeps.
const SUBJECT_BYTES_MAX: usize = 255;

/// Another token service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenServer {
    /// The value of `iss`.
    pub(super) issuer: String,
    /// The value of `aud`: this registry.
    pub(super) service: String,
    /// Where clients get tokens.
    pub(super) realm: String,
    pub(super) keys: KeySource,
}

/// Verifies tokens of another token service.
#[derive(Debug, Default)]
pub(super) struct ExternalTokens {
    keys: KeySets,
    verified: Mutex<Verified>,
}

/// What was verified, and for which service.
#[derive(Debug, Default)]
struct Verified {
    server: Option<TokenServer>,
    tokens: RememberedTokens,
}

impl ExternalTokens {
    /// Returns the bearer of a token that was verified a moment ago.
    pub(super) fn remembered(&self, server: &TokenServer, token: &str) -> Option<Caller> {
        let mut verified = self.verified.lock();
        if verified.server.as_ref() != Some(server) {
            *verified = Verified {
                server: Some(server.clone()),
                tokens: RememberedTokens::default(),
            };
        }
        let found = verified.tokens.get(token)?;
        drop(verified);
        (now_unix_s() <= found.until_unix_s).then(|| caller(&found))
    }

    /// Returns the bearer of a token; `None` if it is not valid now.
    pub(super) async fn verify(
        &self,
        server: &TokenServer,
        token: &str,
    ) -> Result<Option<Caller>, KeysUnknown> {
        let expected = Expected {
            issuer: &server.issuer,
            audiences: std::slice::from_ref(&server.service),
        };
        let claims = self.keys.verify(&server.keys, token, expected).await?;
        let Some(found) = claims.and_then(|claims| read(server, claims)) else {
            return Ok(None);
        };
        let found = Arc::new(found);
        let verified = self.verified.lock();
        if verified.server.as_ref() == Some(server) {
            verified.tokens.add(token, &found);
        }
        drop(verified);
        Ok(Some(caller(&found)))
    }
}

fn caller(verified: &VerifiedToken) -> Caller {
    Caller {
        subject: verified.subject.to_string(),
        scope: Some(Arc::clone(&verified.scope)),
        ..Caller::default()
    }
}

/// Reads the claims of a verified token. Returns `None` if they are not those of distribution's tokens.
fn read(server: &TokenServer, mut claims: Map<String, Value>) -> Option<VerifiedToken> {
    let mut access: Vec<Scope> = match claims.remove("access") {
        None | Some(Value::Null) => Vec::new(),
        Some(access) => serde_json::from_value(access).ok()?,
    };
    let name = claims.get("sub").and_then(Value::as_str);
    let subject = match name.unwrap_or_default() {
        "" => {
            for scope in &mut access {
                scope.actions.retain(|action| action == "pull");
            }
            String::new()
        }
        // No user, and no client certificate, has this character in its name.
        name => format!("{}#{name}", server.issuer),
    };
    if subject.len() > SUBJECT_BYTES_MAX {
        return None;
    }
    let until = claims.get("exp").and_then(Value::as_u64)?;
    let until = until.saturating_add(LEEWAY.as_secs());
    Some(VerifiedToken {
        subject: subject.into(),
        scope: Arc::new(TokenScope::granting(access)),
        credential: None,
        provenance: None,
        until_unix_s: until.min(now_unix_s() + LIFETIME.as_secs()),
    })
}
