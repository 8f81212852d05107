//! Workload identity: programs that log in with a token which their platform issued (`OpenID` Connect).
//!
//! Owns: [`Workloads`]: whose token it is, and what is kept of it. Refuses: keys (`key_sets`), and the file in which
//! the operator says whom tokens log in (`rules`).
//!
//! A token is a password without a secret to keep: a job of a CI or a pod of a cluster shows who it is for minutes.
//!
//! Invariants: an issuer that the operator did not name is never asked. A token logs in only the user that the operator
//! named, who is an admin only if rules say so.

mod issuer;

use jsonwebtoken::dangerous::insecure_decode_claims;
use serde::Deserialize;
use serde_json::Value;

pub(super) use self::issuer::{Issuer, WorkloadUser};
use super::key_sets::{Expected, KeySets, KeysUnknown};
use super::{Caller, Credential};

/// The part of a token that says whose it is, before it is verified.
#[derive(Deserialize)]
struct Claimed {
    iss: String,
}

/// Returns the issuer that a token claims to be of; `None` if it is no token. Nothing is verified.
pub(super) fn claimed_issuer(token: &str) -> Option<String> {
    // Every header of a token begins like this: `{"`.
    let is_token =
        token.starts_with("eyJ") && token.bytes().filter(|byte| *byte == b'.').count() == 2;
    if !is_token {
        return None;
    }
    let claimed: Claimed = insecure_decode_claims(token).ok()?;
    Some(claimed.iss)
}

/// Logs workloads in.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    keys: KeySets,
}

impl Workloads {
    /// Returns whom a token of this issuer logs in; `None` for nobody.
    pub(super) async fn log_in(
        &self,
        issuer: &Issuer,
        token: &str,
    ) -> Result<Option<Caller>, KeysUnknown> {
        let expected = Expected {
            issuer: &issuer.url,
            audiences: &issuer.audiences,
        };
        let claims = self.keys.verify(&issuer.keys, token, expected).await?;
        let caller = claims.and_then(|claims| {
            let user = issuer.user(&claims)?;
            Some(Caller {
                subject: user.to_owned(),
                credential: Some(Credential::Workload {
                    issuer: (*issuer.url).into(),
                    until_unix_s: claims.get("exp").and_then(Value::as_u64)?,
                }),
                provenance: Some(issuer.provenance(&claims).into()),
                ..Caller::default()
            })
        });
        Ok(caller)
    }
}
