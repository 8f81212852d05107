//! Credentials in the head of a request: a name with its password (RFC 7617), or a token (RFC 6750). A request without
//! them has the name of its connection's certificate.
//!
//! Owns: [`CredentialAuthenticator`] and its challenges. Refuses: whose credentials they are (`login`), and verifying
//! tokens (`tokens`, `external_tokens`).
//!
//! The challenge is for a token, because docker pulls without credentials only from a registry that issues tokens to
//! anyone. Its realm is the path of the token service, which the front end makes a whole address, or that of another
//! token service.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderValue, header};

use super::external_tokens::ExternalTokens;
use super::key_sets::KeysUnknown;
use super::login::Login;
use super::tokens::{SERVICE, Scope, TokenService};
use super::workloads::claimed_issuer;
use super::{Authenticator, Caller, Challenge, ConnectionFacts, Decision, Permission, Refused};

/// The path of the token service.
pub(crate) const TOKEN_PATH: &str = "/token";

/// Passwords and tokens.
#[derive(Debug)]
pub(super) struct CredentialAuthenticator {
    pub(super) login: Login,
    pub(super) tokens: Arc<TokenService>,
    pub(super) external: ExternalTokens,
}

/// What a head says about its sender.
#[derive(PartialEq, Eq)]
pub(super) enum Credentials {
    None,
    Password { name: String, password: String },
    Token(String),
    Invalid,
}

impl Authenticator for CredentialAuthenticator {
    fn authenticate<'a>(
        &'a self,
        head: &'a Parts,
        connection: &'a ConnectionFacts,
    ) -> Decision<'a, Result<Caller, Refused>> {
        let (name, password) = match credentials(head) {
            Credentials::None => {
                let name = connection.client_name.as_ref();
                let caller = name.and_then(|name| self.login.by_certificate(name));
                return Decision::Ready(Ok(caller.unwrap_or_default()));
            }
            Credentials::Token(token) => return self.bearer(token),
            Credentials::Password { name, password } => (name, password),
            Credentials::Invalid => return Decision::Ready(Err(self.refused(None))),
        };
        let logged_in = self.login.log_in(connection.client, name, password);
        logged_in.map(|caller| caller?.ok_or_else(|| self.refused(None)))
    }

    fn challenge(&self, permission: Permission<'_>) -> Challenge {
        self.challenge_for(Scope::of(permission), None)
    }
}

impl CredentialAuthenticator {
    /// Returns whom a token is for.
    fn bearer(&self, token: String) -> Decision<'_, Result<Caller, Refused>> {
        if let Some(caller) = self.own_bearer(&token) {
            return Decision::Ready(Ok(caller));
        }
        let rules = self.login.rules.get();
        let server = rules.token_server();
        let server =
            server.filter(|server| claimed_issuer(&token).as_ref() == Some(&server.issuer));
        let Some(server) = server else {
            return Decision::Ready(Err(self.refused(Some("invalid_token"))));
        };
        if let Some(caller) = self.external.remembered(server, &token) {
            return Decision::Ready(Ok(caller));
        }
        let server = server.clone();
        let verifying = async move {
            let caller = self.external.verify(&server, &token).await;
            // Why its keys are not known is in the log.
            let caller = caller.map_err(|KeysUnknown| Refused::Unavailable)?;
            caller.ok_or_else(|| self.refused(Some("invalid_token")))
        };
        Decision::Pending(verifying.boxed())
    }

    /// Returns whom a token of this registry is for. A user who was removed has no valid token.
    fn own_bearer(&self, token: &str) -> Option<Caller> {
        let verified = self.tokens.verify(token)?;
        let credential = verified.credential.as_ref();
        let holder = self.login.holder(&verified.subject, credential)?;
        Some(Caller {
            scope: Some(Arc::clone(&verified.scope)),
            credential: None,
            provenance: verified.provenance.clone(),
            ..holder
        })
    }

    fn refused(&self, error: Option<&str>) -> Refused {
        Refused::Unauthenticated(self.challenge_for(None, error))
    }

    fn challenge_for(&self, scope: Option<Scope>, error: Option<&str>) -> Challenge {
        let rules = self.login.rules.get();
        let (realm, service) = match rules.token_server() {
            Some(server) => (&*server.realm, &*server.service),
            None => (TOKEN_PATH, SERVICE),
        };
        let mut text = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
        if let Some(scope) = scope {
            text = format!("{text},scope=\"{scope}\"");
        }
        if let Some(error) = error {
            text = format!("{text},error=\"{error}\"");
        }
        // Names of repositories have no quotes.
        let plain = HeaderValue::from_static("Bearer realm=\"/token\",service=\"tonnage\"");
        Challenge(HeaderValue::try_from(text).unwrap_or(plain))
    }
}

/// Reads the credentials of a head. An empty name with an empty password is nobody: some clients send that.
pub(super) fn credentials(head: &Parts) -> Credentials {
    let mut values = head.headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Credentials::None;
    };
    if values.next().is_some() {
        return Credentials::Invalid;
    }
    let text = value.to_str().ok().and_then(|text| text.split_once(' '));
    let Some((scheme, rest)) = text else {
        return Credentials::Invalid;
    };
    if scheme.eq_ignore_ascii_case("bearer") {
        return Credentials::Token(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Credentials::Invalid;
    }
    let decoded = STANDARD.decode(rest.trim()).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        None => Credentials::Invalid,
        Some(("", "")) => Credentials::None,
        Some((name, password)) => Credentials::Password {
            name: name.to_owned(),
            password: password.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: RFC 7617 section 2: the password is everything after the first colon; anything else is rejected, and
    /// not taken for a request without credentials.
    #[test]
    fn credentials_are_read() {
        let read = |values: &[&str]| {
            let mut request = http::Request::get("/");
            for value in values {
                request = request.header(header::AUTHORIZATION, *value);
            }
            credentials(&request.body(()).unwrap().into_parts().0)
        };
        let encoded = |text: &str| format!("bAsIc {}", STANDARD.encode(text));
        assert!(read(&[]) == Credentials::None);
        assert!(read(&[&encoded(":")]) == Credentials::None);
        assert!(
            read(&[&encoded("a:b:c")])
                == Credentials::Password {
                    name: "a".to_owned(),
                    password: "b:c".to_owned()
                }
        );
        for invalid in [
            "",
            "Basic",
            "Basic !",
            "Digest abc",
            &encoded("nothing"),
            "Basic\tYTpi",
        ] {
            assert!(read(&[invalid]) == Credentials::Invalid, "{invalid}");
        }
        assert!(read(&["bearer abc"]) == Credentials::Token("abc".to_owned()));
        assert!(read(&[&encoded("a:b"), &encoded("a:b")]) == Credentials::Invalid);
    }
}
