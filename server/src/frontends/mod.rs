//! The protocols in which clients speak to the registry, each a folder; they stand side by side on one transport.
//!
//! `body`, `source` and `error_body` are what they share: bytes from and to the registry, and the form of an error.

pub(crate) mod admin;
mod body;
mod error_body;
pub(crate) mod oci;
mod source;
