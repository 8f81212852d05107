//! Entry point for fuzzers: verification of tokens, and signing any text. Compiled only with the feature `fuzz-entry`.
//!
//! Owns: [`FuzzedTokens`]. Refuses: to remember what it verified, so that an input has the same result each time.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{ALGORITHM, ISSUER, LEEWAY, REFRESH_SERVICE, SERVICE, TokenService, now_unix_s};

/// A token service that also signs what it would not issue.
#[derive(Debug)]
pub struct FuzzedTokens(TokenService);

impl FuzzedTokens {
    /// Opens a service with keys in `directory`. Returns `None` if that is not possible.
    pub fn open(directory: &Path) -> Option<Self> {
        TokenService::open(directory).ok().map(Self)
    }

    /// Returns the name of the key that signs.
    pub fn key_id(&self) -> String {
        self.0.keys.newest().0
    }

    /// Signs any header and claims.
    pub fn sign(&self, header: &[u8], claims: &[u8]) -> Option<String> {
        let parts = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = parts.join(".");
        let (_, key) = self.0.keys.newest();
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, ALGORITHM);
        Some(format!("{signed}.{}", signature.ok()?))
    }

    /// Returns whether a token is accepted, as a token or as a refresh token.
    ///
    /// # Panics
    /// If one is accepted that says that it is of another issuer, for another service, or not valid now.
    pub fn accepts(&self, token: &str) -> bool {
        [SERVICE, REFRESH_SERVICE].into_iter().any(|service| {
            let Some(claims) = self.0.decode(token, service) else {
                return false;
            };
            let now = now_unix_s();
            let leeway = LEEWAY.as_secs() + 1;
            assert!(claims.iss == ISSUER && claims.aud == service);
            assert!(claims.exp.saturating_add(leeway) >= now);
            assert!(claims.nbf <= now.saturating_add(leeway));
            true
        })
    }
}
