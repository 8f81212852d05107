//! The protocols of the registry. Each has a folder; they share one transport and do not import each other.
//!
//! Owns: their shared parts: `body` and `source` carry bytes from and to the registry, `error_body` is the form of an
//! error.

pub(crate) mod admin;
mod body;
mod error_body;
pub(crate) mod oci;
mod source;
