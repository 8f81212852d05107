//! The front end of the OCI distribution API: routes, headers, statuses.

mod blobs;
mod catalog;
mod conditional;
mod content;
mod context;
mod error;
#[cfg(feature = "fuzz-entry")]
pub(crate) mod fuzz_entry;
mod headers;
mod kept_answers;
mod locations;
mod manifest_memory;
mod manifests;
mod namespace;
mod referrers;
mod repeat;
mod reply;
mod request_log;
mod route;
mod service;
mod tags;
mod token;
mod uploads;
mod warning;

pub(crate) use self::context::OciState;
pub(crate) use self::kept_answers::KeptAnswers;
pub use self::locations::{InvalidLocations, Locations};
pub(crate) use self::manifest_memory::ManifestMemory;
pub(crate) use self::service::OciFrontEnd;
