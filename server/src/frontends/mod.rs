//! The protocols in which clients speak to the registry. Each is a folder; they share one transport and do not import
//! each other.
//!
//! Owns: what they share: `body` and `source` carry bytes from and to the registry, `error_body` is the form of an
//! error.

pub(crate) mod admin;
mod body;
mod error_body;
pub(crate) mod oci;
mod source;
