//! Tokens of another token service (distribution's token authentication), which the operator named.
//!
//! Owns: [`TokenServer`], and the verification of its tokens. Refuses: their keys (`key_sets`).
//!
//! Unlike the registry's own, such a token also grants: what it names is what its bearer may do, because the other
//! service knows its users, and rules here do not. Rules decide only which tags are immutable.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::remembered::RememberedTokens;
use super::{LEEWAY, Scope, TokenScope, VerifiedToken};
use crate::access::key_sets::{Expected, KeySets, KeySource, KeysUnknown};
use crate::access::{Caller, now_unix_s};

/// Longest name of a subject, which the journal keeps.
const SUBJECT_BYTES_MAX: usize = 128;

/// Another token service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::access) struct TokenServer {
    /// The value of `iss`.
    pub(in crate::access) issuer: String,
    /// The value of `aud`: this registry.
    pub(in crate::access) service: String,
    /// Where clients get tokens.
    pub(in crate::access) realm: String,
    pub(in crate::access) keys: KeySource,
}

/// Verifies tokens of another token service.
#[derive(Debug, Default)]
pub(in crate::access) struct ExternalTokens {
    keys: KeySets,
    verified: RememberedTokens,
}

impl ExternalTokens {
    /// Returns the bearer of a token that was verified a moment ago.
    pub(in crate::access) fn remembered(&self, token: &str) -> Option<Caller> {
        let verified = self.verified.get(token)?;
        (now_unix_s() <= verified.until_unix_s).then(|| caller(&verified))
    }

    /// Returns the bearer of a token; `None` if it is not valid now.
    pub(in crate::access) async fn verify(
        &self,
        server: &TokenServer,
        token: &str,
    ) -> Result<Option<Caller>, KeysUnknown> {
        let expected = Expected {
            issuer: &server.issuer,
            audiences: std::slice::from_ref(&server.service),
        };
        let claims = self.keys.verify(&server.keys, token, expected).await?;
        let Some(verified) = claims.and_then(read) else {
            return Ok(None);
        };
        let verified = Arc::new(verified);
        self.verified.add(token, &verified);
        Ok(Some(caller(&verified)))
    }
}

fn caller(verified: &VerifiedToken) -> Caller {
    Caller {
        subject: verified.subject.to_string(),
        scope: Some(Arc::clone(&verified.scope)),
        is_granted_by_scope: true,
        ..Caller::default()
    }
}

/// Reads the claims of a verified token. Returns `None` if they are not those of distribution's tokens.
fn read(mut claims: Map<String, Value>) -> Option<VerifiedToken> {
    let access: Vec<Scope> = match claims.remove("access") {
        None | Some(Value::Null) => Vec::new(),
        Some(access) => serde_json::from_value(access).ok()?,
    };
    let subject = claims
        .get("sub")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if subject.len() > SUBJECT_BYTES_MAX {
        return None;
    }
    let until = claims.get("exp").and_then(Value::as_u64)?;
    Some(VerifiedToken {
        subject: subject.into(),
        scope: Arc::new(TokenScope::new(access)),
        credential: None,
        provenance: None,
        until_unix_s: until.saturating_add(LEEWAY.as_secs()),
    })
}
