//! The registry: the OCI distribution API over a blob store and a catalog.
//!
//! Three layers, each using only those before it: [`oci`] (words, pure), [`registry`] (use cases, speaking to
//! storage through [`registry::ports`]), `http` (routes, headers, statuses).
#![forbid(unsafe_code)]

pub mod oci;
pub mod runtime;
