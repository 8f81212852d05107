//! Interfaces for operators: metrics and health on a listener, and online commands on a socket in the store's
//! directory.

pub(crate) mod probes;
pub(crate) mod routes;
pub(crate) mod socket;
