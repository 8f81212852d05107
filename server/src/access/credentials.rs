//! Credentials in the head of a request: a name with its password (RFC 7617), or a token (RFC 6750). A request without
//! them has the name of its connection's certificate.
//!
//! Owns: [`CredentialAuthenticator`] and its challenges. Refuses: comparing passwords (`users::passwords`) and
//! verifying tokens (`tokens`).
//!
//! The challenge is for a token, because docker pulls without credentials only from a registry that issues tokens to
//! anyone. Its realm is the path of the token service; the front end makes it a whole address.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderValue, header};

use super::tokens::{SERVICE, Scope, TokenService};
use super::users::passwords::Passwords;
use super::{
    Authenticator, Caller, CallerName, Challenge, ConnectionFacts, Decision, Permission, Refused,
};
use crate::tls::ClientName;

/// The path of the token service.
pub(crate) const TOKEN_PATH: &str = "/token";

/// Passwords and tokens.
#[derive(Debug)]
pub(super) struct CredentialAuthenticator {
    pub(super) passwords: Arc<Passwords>,
    pub(super) tokens: Arc<TokenService>,
}

/// What a head says about its sender.
#[derive(PartialEq, Eq)]
enum Credentials {
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
            Credentials::None => return Decision::Ready(Ok(self.by_certificate(connection))),
            Credentials::Token(token) => {
                let caller = self.bearer(&token);
                let refused = || Refused::Unauthenticated(challenge(None, Some("invalid_token")));
                return Decision::Ready(caller.ok_or_else(refused));
            }
            Credentials::Password { name, password } => (name, password),
            Credentials::Invalid => return Decision::Ready(Err(refused())),
        };
        let logged_in = self.passwords.log_in(connection.client, name, password);
        logged_in.map(|caller| caller?.ok_or_else(refused))
    }

    fn challenge(&self, permission: Permission<'_>) -> Challenge {
        challenge(Scope::of(permission), None)
    }
}

impl CredentialAuthenticator {
    /// Returns whom the certificate of a connection names: a user of the list, or any other name, which may be in the
    /// rules.
    fn by_certificate(&self, connection: &ConnectionFacts) -> Caller {
        let name = connection
            .client_name
            .as_ref()
            .and_then(ClientName::current);
        let Some(Ok(name)) = name.map(str::parse::<CallerName>) else {
            return Caller::default();
        };
        let subject = String::from(name);
        let user = self.passwords.users().get(&subject);
        Caller {
            is_admin: user.is_some_and(|user| user.is_admin),
            subject,
            scope: None,
        }
    }

    /// Returns whom a token is for. A user who was removed has no valid token.
    fn bearer(&self, token: &str) -> Option<Caller> {
        let verified = self.tokens.verify(token)?;
        let is_admin = if verified.subject.is_empty() {
            false
        } else {
            let user = self.passwords.users().get(&verified.subject)?;
            // Another password, or another user of the same name, ends the token.
            if *user.password_id() != *verified.password {
                return None;
            }
            user.is_admin
        };
        Some(Caller {
            subject: verified.subject.to_string(),
            is_admin,
            scope: Some(verified.scope),
        })
    }
}

fn refused() -> Refused {
    Refused::Unauthenticated(challenge(None, None))
}

fn challenge(scope: Option<Scope>, error: Option<&str>) -> Challenge {
    let mut text = format!("Bearer realm=\"{TOKEN_PATH}\",service=\"{SERVICE}\"");
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

/// Reads the credentials of a head. An empty name with an empty password is nobody: some clients send that.
fn credentials(head: &Parts) -> Credentials {
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

/// Parses the credentials of a head, for fuzzers.
#[cfg(feature = "fuzz-entry")]
pub(crate) fn read(head: &Parts) {
    if let Credentials::Token(token) = credentials(head) {
        drop(jsonwebtoken::decode_header(token));
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
