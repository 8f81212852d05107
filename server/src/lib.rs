//! The registry: the OCI distribution API over a blob store and a catalog.
//!
//! Three layers, each using only those before it: [`oci`] (words, pure), [`registry`] (use cases, speaking to
//! storage through [`registry::ports`]), `http` (routes, headers, statuses). [`access`] decides who may do what; [`operator`] is for those
//! who may open the store's files.
#![forbid(unsafe_code)]

pub mod access;
mod clock;
pub mod embedded;
mod http;
pub mod oci;
pub mod operator;
pub mod registry;
pub mod runtime;
mod telemetry;

#[cfg(feature = "doors")]
pub mod doors {
    //! Parsers that have no other way in, for the fuzzers of tests/. Gone without the feature `doors`.
    pub use crate::http::door::{Head, read_head};
    pub use crate::registry::read_attributes;
}

pub use crate::http::control::{
    Control, DELETE_REPOSITORY_PATH, DELETE_TAGS_PATH, LIST_REPOSITORIES_PATH, LIST_TAGS_PATH,
    STATS_PATH, Stats, StatsAnswer, with_short,
};
pub use crate::http::host::{Host, Hostname, InvalidHost};
pub use crate::http::locations::{InvalidLocations, Locations};
pub use crate::http::places::connections_waiting_max;
pub use crate::http::server::{
    ADMIN_CONNECTIONS_MAX, Bound, Http2Options, ServeError, Server, ServerOptions,
};
