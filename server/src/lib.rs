//! The registry: the OCI distribution API over a blob store and a catalog.
//!
//! Layers, each using only those before it: `transport` (HTTP connections, for any content), [`oci`] (the
//! specification's types, pure), [`registry`] (use cases, which use storage through [`registry::ports`]), `frontends`
//! (routes, headers, statuses; one folder for each protocol). [`access`] determines who sends a request and decides
//! what they may do; [`admin`] has the operations for users who may open the store's files. [`repair`] heals damaged
//! blobs from another registry, which [`outgoing`] reaches by HTTP.
#![forbid(unsafe_code)]

pub mod access;
pub mod admin;
mod clock;
mod documents;
pub mod embedded;
mod frontends;
mod kept_files;
pub mod oci;
pub mod outgoing;
mod reason;
pub mod registry;
pub mod repair;
mod repeated;
pub mod runtime;
mod server;
mod telemetry;
pub mod tls;
mod transport;
mod wall_clock;

#[cfg(feature = "fuzz-entry")]
pub mod fuzz_entry {
    //! Parsers that are not public otherwise, for the fuzzers of tests/. Compiled only with the feature `fuzz-entry`.
    pub use crate::access::FuzzedTokens;
    pub use crate::access::fuzz_entry::{
        Authorization, api_key, authorization, claimed_issuer, granted, key_set_accepts,
    };
    pub use crate::frontends::oci::fuzz_entry::{Head, read_head, routes};
    pub use crate::registry::read_attributes;
}

pub use crate::frontends::admin::routes::ADMIN_PATH;
pub use crate::frontends::admin::socket::{AdminSocket, with_short_path};
pub use crate::frontends::oci::{InvalidLocations, Locations};
pub use crate::kept_files::FileError;
pub use crate::server::{ADMIN_CONNECTIONS_MAX, Bound, ServeError, Server, ServerOptions};
pub use crate::transport::connection_limits::Http2Options;
pub use crate::transport::connections_waiting_max;
pub use crate::transport::host::{Host, Hostname, InvalidHost};
