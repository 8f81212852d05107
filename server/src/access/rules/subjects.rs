//! Whom a rule is for.

use std::fmt;
use std::str::FromStr;

use crate::access::{CallerName, UserName};

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Everyone, also without credentials.
    Anyone,
    /// Everyone with credentials.
    Users,
    /// A user, or who has a certificate of that name.
    User(String),
    /// The users of a group, written `@NAME`.
    Group(String),
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let group = |text: &str| text.parse::<UserName>().map_err(|error| error.to_string());
        match (text, text.strip_prefix('@')) {
            ("anyone", _) => Ok(Self::Anyone),
            ("users", _) => Ok(Self::Users),
            (_, Some(name)) => Ok(Self::Group(group(name)?.to_string())),
            (user, None) => Ok(Self::User(user.parse::<CallerName>()?.into())),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Users => f.write_str("users"),
            Self::User(name) => f.write_str(name),
            Self::Group(name) => write!(f, "@{name}"),
        }
    }
}
