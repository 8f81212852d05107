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
}
