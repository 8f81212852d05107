//! Credentials for another registry.
//!
//! Owns: [`RegistryCredentials`], and the `Authorization` fields made of credentials and tokens.
//!
//! Invariant: a secret is in no `Debug` form, and a field made of one is marked as sensitive.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::{Deserialize, Serialize};

/// A user name and a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryCredentials {
    /// The user name.
    pub username: String,
    /// The password or access token.
    pub password: Secret,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl RegistryCredentials {
    /// Returns the value of `Authorization` for Basic authentication (RFC 7617).
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let Self { username, password } = self;
        let encoded = STANDARD.encode(format!("{username}:{}", password.0));
        sensitive(&format!("Basic {encoded}"))
    }
}

/// Returns the value of `Authorization` for a token; `None` if a field cannot have it.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a password is in no debug form, and Basic is encoded as RFC 7617 says.
    #[test]
    fn secrets_are_not_shown() {
        let credentials = RegistryCredentials {
            username: "Aladdin".to_owned(),
            password: Secret::new("open sesame".to_owned()),
        };
        let basic = credentials.basic().unwrap();
        assert_eq!(basic, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        for shown in [format!("{credentials:?}"), format!("{basic:?}")] {
            assert!(
                !shown.contains("sesame") && !shown.contains("QWxh"),
                "{shown}"
            );
        }
    }
}
