//! The registry: the OCI distribution API over a blob store and a catalog.
//!
//! Three layers, each using only those before it: [`oci`] (words, pure), [`registry`] (use cases, speaking to
//! storage through [`registry::ports`]), `http` (routes, headers, statuses). [`access`] decides who may do what.
#![forbid(unsafe_code)]

pub mod access;
pub mod embedded;
mod http;
pub mod oci;
pub mod registry;
pub mod runtime;
mod telemetry;

pub use crate::http::control::{Control, STATS_PATH, Stats, StatsAnswer, with_short};
pub use crate::http::server::{Bound, Http2Options, ServeError, Server, ServerOptions};
