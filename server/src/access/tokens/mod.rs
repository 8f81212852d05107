//! The token service: short-lived tokens in place of passwords (distribution's token authentication).
//!
//! Owns: [`TokenService`]: what a token says, how long it is valid, and which tokens were verified a moment ago.
//! Refuses: HTTP (`frontends::oci::token`), the grammar of scopes (`scope`), signing keys (`keys`).
//!
//! A token restricts what its subject may do, and never adds to it: rules and the list of users are asked with every
//! request, too. So a token loses its power with a rule or a user, and its lifetime bounds only what a stolen one is
//! worth.
//!
//! Invariants: only tokens of the own keys, with the one algorithm, are accepted; keys and algorithms that a token
//! names itself are ignored. A token is never logged.

mod external;
#[cfg(feature = "fuzz-entry")]
pub(super) mod fuzz_entry;
mod keys;
mod remembered;
pub(super) mod scope;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};

pub(super) use self::external::{ExternalTokens, TokenServer};
use self::keys::SigningKeys;
use self::remembered::RememberedTokens;
pub use self::scope::{InvalidScope, Scope, TokenScope};
use super::{AccessError, Caller, Credential, Provenance, now_unix_s};

/// How long a token is valid. Clients ask for another one in time.
pub(super) const LIFETIME: Duration = Duration::from_mins(5);
/// How much the clocks of two servers may differ.
const LEEWAY: Duration = Duration::from_mins(1);
/// Longest token that is looked at: one with a hundred scopes has about 10 KiB.
const BYTES_MAX: usize = 64 << 10;
/// How long a refresh token is valid. The key that signed it verifies for as long after it was replaced.
const REFRESH_LIFETIME: Duration = keys::SIGNS;
/// Who issues tokens, and for whom.
const ISSUER: &str = "tonnage";
pub(super) const SERVICE: &str = "tonnage";
/// For whom refresh tokens are: the token service itself, so that no request accepts one in place of a token.
const REFRESH_SERVICE: &str = "tonnage-refresh";
/// The one algorithm: ECDSA on P-256 with SHA-256, which every JWT library has.
const ALGORITHM: Algorithm = Algorithm::ES256;

/// What a token says (RFC 7519 section 4.1, and distribution's `access`).
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: Vec<Scope>,
    /// For what it was issued; absent for an anonymous one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential: Option<Credential>,
    /// Where the subject's credentials come from, if a build has them from another issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provenance: Option<Provenance>,
}

/// A token that was issued.
pub struct IssuedToken {
    /// The token itself.
    pub token: String,
    /// What it is for.
    pub granted: Vec<Scope>,
    /// When it was issued, in Unix time.
    pub issued_unix_s: u64,
    /// How long it is valid.
    pub lifetime: Duration,
}

/// A token is secret.
impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let granted = &self.granted;
        f.debug_struct("IssuedToken")
            .field("granted", granted)
            .finish_non_exhaustive()
    }
}

/// Whom a verified token is for, and for what.
#[derive(Debug)]
pub(super) struct VerifiedToken {
    pub(super) subject: Arc<str>,
    pub(super) scope: Arc<TokenScope>,
    /// For what it was issued; `None` for an anonymous one.
    pub(super) credential: Option<Credential>,
    /// Where the subject's credentials come from.
    pub(super) provenance: Option<Arc<Provenance>>,
    /// The last second in which it is accepted, in Unix time.
    until_unix_s: u64,
}

/// Issues and verifies tokens.
pub(super) struct TokenService {
    keys: SigningKeys,
    verified: RememberedTokens,
}

impl fmt::Debug for TokenService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenService").finish_non_exhaustive()
    }
}

impl TokenService {
    /// Reads the signing keys in `directory`, or makes the first.
    pub(super) fn open(directory: &Path) -> Result<Self, AccessError> {
        Ok(Self {
            keys: SigningKeys::open(directory, now_unix_s())?,
            verified: RememberedTokens::default(),
        })
    }

    /// Replaces the signing key if it is old. Tokens of the one before stay valid. Waits for the disk.
    pub(super) fn rotate(&self) -> Result<(), AccessError> {
        self.keys.rotate(now_unix_s())
    }

    /// Issues a token for what was granted to a caller, bound to the credential and no longer valid than that.
    pub(super) fn issue(
        &self,
        caller: &Caller,
        granted: Vec<Scope>,
    ) -> Result<IssuedToken, AccessError> {
        let now = now_unix_s();
        let until = caller
            .credential
            .as_ref()
            .and_then(Credential::until_unix_s);
        let left = until.map(|until| Duration::from_secs(until.saturating_sub(now)));
        let lifetime = left.map_or(LIFETIME, |left| left.min(LIFETIME));
        let mut claims = claims(&caller.subject, SERVICE, now, lifetime);
        claims.credential.clone_from(&caller.credential);
        claims.provenance = caller.provenance.as_deref().cloned();
        claims.access = granted;
        Ok(IssuedToken {
            token: self.sign(&claims)?,
            granted: claims.access,
            issued_unix_s: now,
            lifetime,
        })
    }

    /// Issues a refresh token: it gets tokens without the password, as long as its credential is valid.
    pub(super) fn issue_refresh(
        &self,
        subject: &str,
        credential: Credential,
    ) -> Result<String, AccessError> {
        let mut claims = claims(subject, REFRESH_SERVICE, now_unix_s(), REFRESH_LIFETIME);
        claims.credential = Some(credential);
        self.sign(&claims)
    }

    fn sign(&self, claims: &Claims) -> Result<String, AccessError> {
        let (id, key) = self.keys.newest();
        let header = Header {
            kid: Some(id),
            ..Header::new(ALGORITHM)
        };
        jsonwebtoken::encode(&header, claims, &key)
            .map_err(|error| AccessError::Token(error.to_string()))
    }

    /// Verifies a token. Returns `None` if it is not valid now.
    pub(super) fn verify(&self, token: &str) -> Option<Arc<VerifiedToken>> {
        let now = now_unix_s();
        if let Some(known) = self.verified.get(token) {
            return (now <= known.until_unix_s).then_some(known);
        }
        let claims = self.decode(token, SERVICE)?;
        let verified = Arc::new(VerifiedToken {
            subject: claims.sub.into(),
            scope: Arc::new(TokenScope::new(claims.access)),
            credential: claims.credential,
            provenance: claims.provenance.map(Arc::new),
            until_unix_s: claims.exp.saturating_add(LEEWAY.as_secs()),
        });
        self.verified.add(token, &verified);
        Some(verified)
    }

    /// Verifies a refresh token. Returns its subject and the credential for which it was issued; `None` if it is not
    /// valid now.
    pub(super) fn verify_refresh(&self, token: &str) -> Option<(String, Credential)> {
        let claims = self.decode(token, REFRESH_SERVICE)?;
        Some((claims.sub, claims.credential?))
    }

    fn decode(&self, token: &str, service: &str) -> Option<Claims> {
        if token.len() > BYTES_MAX {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        let key = self.keys.by_id(header.kid.as_deref()?)?;
        let mut validation = Validation::new(ALGORITHM);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_audience(&[service]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        let decoded = jsonwebtoken::decode::<Claims>(token, &key, &validation);
        decoded.ok().map(|decoded| decoded.claims)
    }
}

/// Returns what every token says.
fn claims(subject: &str, service: &str, now_unix_s: u64, lifetime: Duration) -> Claims {
    Claims {
        iss: ISSUER.to_owned(),
        sub: subject.to_owned(),
        aud: service.to_owned(),
        exp: now_unix_s + lifetime.as_secs(),
        nbf: now_unix_s,
        iat: now_unix_s,
        jti: uuid::Uuid::new_v4().to_string(),
        access: Vec::new(),
        credential: None,
        provenance: None,
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    fn alice() -> Caller {
        Caller {
            subject: "alice".to_owned(),
            ..Caller::default()
        }
    }

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    /// Guards: a token is accepted with its own signature, audience, issuer and time only, and only by the service
    /// that signed it. What it names in its header does not matter.
    #[test]
    fn only_own_tokens_are_accepted() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let tokens = TokenService::open(one.path()).unwrap();
        let issued = tokens
            .issue(&alice(), vec![scope("repository:a:pull")])
            .unwrap();
        let verified = tokens.verify(&issued.token).unwrap();
        assert_eq!(&*verified.subject, "alice");
        assert!(tokens.verify(&issued.token).is_some(), "remembered");
        // Another process with the same keys.
        let again = TokenService::open(one.path()).unwrap();
        assert!(again.verify(&issued.token).is_some());
        assert!(
            TokenService::open(other.path())
                .unwrap()
                .verify(&issued.token)
                .is_none()
        );

        let (id, key) = tokens.keys.newest();
        let now = now_unix_s();
        let sign = |header: &Header, change: &dyn Fn(&mut Claims)| {
            let mut claims = claims("alice", SERVICE, now, Duration::from_secs(100));
            change(&mut claims);
            tokens.verify(&jsonwebtoken::encode(header, &claims, &key).unwrap())
        };
        let header = Header {
            kid: Some(id.clone()),
            ..Header::new(ALGORITHM)
        };
        assert!(sign(&header, &|_| ()).is_some());
        let leeway = LEEWAY.as_secs();
        assert!(sign(&header, &|claims| claims.exp = now - leeway - 1).is_none());
        assert!(sign(&header, &|claims| claims.nbf = now + leeway + 100).is_none());
        assert!(sign(&header, &|claims| claims.aud = "other".to_owned()).is_none());
        assert!(sign(&header, &|claims| claims.iss = "other".to_owned()).is_none());
        // A refresh token is for the token service only, and a token is no refresh token.
        let password = Credential::Password("id".into());
        let refresh = tokens.issue_refresh("alice", password.clone()).unwrap();
        assert!(tokens.verify(&refresh).is_none());
        let expected = Some(("alice".to_owned(), password));
        assert_eq!(tokens.verify_refresh(&refresh), expected);
        assert!(tokens.verify_refresh(&issued.token).is_none());
        for kid in [None, Some("other".to_owned())] {
            let header = Header {
                kid,
                ..Header::new(ALGORITHM)
            };
            assert!(sign(&header, &|_| ()).is_none());
        }
    }

    /// Guards: a key that a token brings in its header verifies nothing, whether or not the token also names a key of
    /// the service.
    #[test]
    fn keys_in_a_header_are_ignored() {
        let [own, foreign] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [tokens, attacker] =
            [&own, &foreign].map(|place| TokenService::open(place.path()).unwrap());
        let (_, key) = attacker.keys.newest();
        let (id, _) = tokens.keys.newest();
        let file = std::fs::read_to_string(foreign.path().join("token-keys.toml")).unwrap();
        let file: toml::Table = file.parse().unwrap();
        let private = file["key"][0]["private"].as_str().unwrap();
        let pair = STANDARD.decode(private).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair).unwrap();
        // A point is its form and its two coordinates.
        let [x, y] = [1..33, 33..65].map(|part| &pair.public_key().as_ref()[part]);
        let [x, y] = [x, y].map(|one| URL_SAFE_NO_PAD.encode(one));
        let now = now_unix_s();
        let claims = serde_json::json!({"iss": ISSUER, "sub": "alice", "aud": SERVICE, "exp": now + 100, "nbf": now,
            "iat": now, "jti": "", "access": []});
        let jwk = serde_json::json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y});
        for kid in [None, Some(id)] {
            let header = Header {
                kid,
                jwk: Some(serde_json::from_value(jwk.clone()).unwrap()),
                jku: Some("http://127.0.0.1:9/keys".to_owned()),
                x5c: Some(vec!["MIIB".to_owned()]),
                ..Header::new(ALGORITHM)
            };
            let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
            assert!(tokens.verify(&token).is_none(), "{header:?}");
        }
    }

    /// Guards: a token that is signed with what everyone knows, or not at all, is not accepted, nor is a broken one.
    #[test]
    fn forged_tokens_are_not_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let tokens = TokenService::open(directory.path()).unwrap();
        let issued = tokens.issue(&alice(), Vec::new()).unwrap();
        let ((id, _), now) = (tokens.keys.newest(), now_unix_s());
        // Signed with what everyone knows: the name of the key.
        let secret = jsonwebtoken::EncodingKey::from_secret(id.as_bytes());
        let header = Header {
            kid: Some(id),
            ..Header::new(Algorithm::HS256)
        };
        let claims = serde_json::json!({"iss": ISSUER, "sub": "alice", "aud": SERVICE, "exp": now + 100, "nbf": now,
            "iat": now, "jti": "", "access": []});
        let forged = jsonwebtoken::encode(&header, &claims, &secret).unwrap();
        assert!(tokens.verify(&forged).is_none());
        let (head, rest) = issued.token.split_once('.').unwrap();
        let (body, signature) = rest.split_once('.').unwrap();
        for broken in [
            String::new(),
            "a.b.c".to_owned(),
            format!("{head}.{body}"),
            format!("{head}.{body}."),
            format!("{head}.{}.{signature}", &body[1..]),
            format!("eyJhbGciOiJub25lIn0.{body}."),
        ] {
            assert!(tokens.verify(&broken).is_none(), "{broken}");
        }
    }
}
