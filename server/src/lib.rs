//! The registry.
#![forbid(unsafe_code)]
