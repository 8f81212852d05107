//! Entry points for fuzzers: credentials in a head, keys of other issuers, and what of a scope is granted. Compiled
//! only with the feature `fuzz-entry`.
//!
//! Owns: [`Authorization`], [`claimed_issuer`], [`key_set_accepts`] and [`granted`]. Refuses: parsing of its own.

use http::request::Parts;

use super::api_keys::ApiKeySecret;
use super::credentials::{self, Credentials};
use super::key_sets::{self, Expected};
use super::{Permission, Scope};

/// What a head says about its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// Nothing.
    None,
    /// A name and a password.
    Password(String, String),
    /// A token.
    Token(String),
    /// Something that is rejected.
    Invalid,
}

/// Reads the credentials of a head.
pub fn authorization(head: &Parts) -> Authorization {
    match credentials::credentials(head) {
        Credentials::None => Authorization::None,
        Credentials::Password { name, password } => Authorization::Password(name, password),
        Credentials::Token(token) => Authorization::Token(token),
        Credentials::Invalid => Authorization::Invalid,
    }
}

/// Returns whether a token is accepted with a JSON Web Key Set, from `issuer` for `audience`.
pub fn key_set_accepts(keys: &[u8], token: &str, issuer: &str, audience: &str) -> bool {
    let audiences = [audience.to_owned()];
    let expected = Expected {
        issuer,
        audiences: &audiences,
    };
    key_sets::accepts(keys, token, expected)
}

/// Returns the issuer that a password claims to be a token of, if it is one.
pub fn claimed_issuer(password: &str) -> Option<String> {
    super::workloads::claimed_issuer(password)
}

/// Returns the text of the API key that a password is, if it is one.
pub fn api_key(password: &str) -> Option<String> {
    ApiKeySecret::read(password).map(|key| key.reveal())
}

/// Returns what is granted of a scope to who may pull, push, delete and list repositories, as `may` says in this order.
pub fn granted(scope: Scope, may: [bool; 4]) -> Option<Scope> {
    let [pull, push, delete, list] = may;
    scope.granted(list, |permission| match permission {
        Permission::Pull(_) => pull,
        Permission::Push(_) => push,
        Permission::Delete(_) => delete,
        Permission::Ping
        | Permission::ListRepositories
        | Permission::See(_)
        | Permission::Overwrite(..)
        | Permission::Untag(..) => false,
    })
}
