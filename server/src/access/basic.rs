//! HTTP Basic authentication (RFC 7617).
//!
//! Owns: [`PasswordAuthenticator`]: credentials in a head, and the challenge. Refuses: comparing passwords
//! (`users::passwords`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderValue, header};

use super::users::passwords::Passwords;
use super::{Authenticator, Caller, Challenge, ConnectionFacts, Decision, Permission, Refused};

/// Names and passwords in every request.
#[derive(Debug)]
pub(super) struct PasswordAuthenticator(pub(super) Arc<Passwords>);

/// What a head says about its sender.
#[derive(PartialEq, Eq)]
enum Credentials {
    None,
    Password { name: String, password: String },
    Invalid,
}

impl Authenticator for PasswordAuthenticator {
    fn authenticate<'a>(
        &'a self,
        head: &'a Parts,
        connection: &'a ConnectionFacts,
    ) -> Decision<'a, Result<Caller, Refused>> {
        let (name, password) = match credentials(head) {
            Credentials::None => return Decision::Ready(Ok(Caller::default())),
            Credentials::Invalid => return Decision::Ready(Err(refused())),
            Credentials::Password { name, password } => (name, password),
        };
        if let Some(caller) = self.0.remembered(&name, &password) {
            return Decision::Ready(Ok(caller));
        }
        let compared = Arc::clone(&self.0).compare(connection.peer.ip(), name, password);
        Decision::Pending(compared.map(|caller| caller.ok_or_else(refused)).boxed())
    }

    fn challenge(&self, _: Permission<'_>) -> Challenge {
        challenge()
    }
}

fn refused() -> Refused {
    Refused::Unauthenticated(challenge())
}

fn challenge() -> Challenge {
    Challenge(HeaderValue::from_static("Basic realm=\"Tonnage\""))
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
    let decoded = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| STANDARD.decode(encoded.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
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
            "Bearer abc",
            &encoded("nothing"),
            "Basic\tYTpi",
        ] {
            assert!(read(&[invalid]) == Credentials::Invalid, "{invalid}");
        }
        assert!(read(&[&encoded("a:b"), &encoded("a:b")]) == Credentials::Invalid);
    }
}
