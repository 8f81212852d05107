//! What proves who a caller is.
//!
//! Owns: [`Credential`], to which tokens are bound: a token ends with the credential for which it was issued.

use serde::{Deserialize, Serialize};

/// What proved who a caller is. It identifies a secret and is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// A password, by its id.
    Password(Box<str>),
    /// An API key, by its id.
    Key(Box<str>),
    /// A client certificate.
    Certificate {
        /// The last second in which it is valid, in Unix time.
        until_unix_s: u64,
    },
    /// A token of another issuer.
    Workload {
        /// Whose token it is.
        issuer: Box<str>,
        /// The last second in which it is valid, in Unix time.
        until_unix_s: u64,
    },
}

impl Credential {
    /// Returns the last second in which it is valid, in Unix time; `None` if it has no end of its own.
    pub(super) fn until_unix_s(&self) -> Option<u64> {
        match self {
            Self::Password(_) | Self::Key(_) => None,
            Self::Certificate { until_unix_s } | Self::Workload { until_unix_s, .. } => {
                Some(*until_unix_s)
            }
        }
    }

    /// Returns whether it can be remembered by a refresh token.
    pub(super) fn is_lasting(&self) -> bool {
        self.until_unix_s().is_none()
    }
}
