//! Names of users, groups and other callers.

use std::fmt;
use std::str::FromStr;

use crate::tls::ClientUri;

/// Longest name.
const BYTES_MAX: usize = 128;
/// Words that have a meaning in access rules.
const RESERVED: [&str; 3] = ["anyone", "users", "anonymous"];

/// A name of a user or a group: it never contains what separates names in a file or in a header.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserName(String);

/// The error that a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a user or group: write 1 to 128 letters, digits or ._@+- that begin with a letter or digit, and not anyone, users or anonymous"
)]
pub struct InvalidUserName(String);

impl UserName {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = InvalidUserName;

    fn from_str(text: &str) -> Result<Self, InvalidUserName> {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
        let begins = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins && text.len() <= BYTES_MAX && text.bytes().all(usual) && !RESERVED.contains(&text)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidUserName(text.chars().take(BYTES_MAX).collect()))
        }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name of a caller: that of a user, or a URI from a certificate. The first never has a colon, the second always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerName(String);

impl FromStr for CallerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            let uri = text
                .parse::<ClientUri>()
                .map_err(|error| error.to_string())?;
            return Ok(Self(uri.to_string()));
        }
        let user = text
            .parse::<UserName>()
            .map_err(|error| error.to_string())?;
        Ok(Self(user.0))
    }
}

impl From<CallerName> for String {
    fn from(name: CallerName) -> Self {
        name.0
    }
}
