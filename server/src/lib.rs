//! The registry.
#![forbid(unsafe_code)]

pub mod runtime;
