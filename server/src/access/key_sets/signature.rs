//! Verification of a token with a key of a set.
//!
//! Owns: the algorithms that are accepted, and what every token must say. Refuses: what else it says.

use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::{Map, Value};

/// How much the clocks of two servers may differ.
const LEEWAY: Duration = Duration::from_mins(1);
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Algorithms with a public key (RFC 7518 section 3.1, RFC 8037).
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What a token of this kind must say.
#[derive(Debug, Clone, Copy)]
pub(in crate::access) struct Expected<'a> {
    pub(in crate::access) issuer: &'a str,
    pub(in crate::access) audiences: &'a [String],
}

/// Reads the header of a token, if a key of a set may verify it.
pub(super) fn header_of(token: &str) -> Option<Header> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let header = jsonwebtoken::decode_header(token).ok()?;
    ALGORITHMS.contains(&header.alg).then_some(header)
}

/// Returns what a token says; `None` if it is not valid now with this key.
pub(super) fn decode(
    token: &str,
    key: &Jwk,
    algorithm: Algorithm,
    expected: Expected<'_>,
) -> Option<Map<String, Value>> {
    let named = key.common.key_algorithm.map(|named| named.to_string());
    let is_for_signatures = matches!(
        key.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    if !is_for_signatures || named.is_some_and(|named| named != format!("{algorithm:?}")) {
        return None;
    }
    // It fails if the algorithm is not one for this kind of key.
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY.as_secs();
    validation.validate_nbf = true;
    validation.set_audience(expected.audiences);
    validation.set_issuer(&[expected.issuer]);
    validation.set_required_spec_claims(&["exp", "aud", "iss"]);
    let key = DecodingKey::from_jwk(key).ok()?;
    let decoded = jsonwebtoken::decode(token, &key, &validation);
    decoded.ok().map(|decoded| decoded.claims)
}
