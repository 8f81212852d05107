//! Servers and clients that the benchmarks share.

pub mod rival;
pub mod wire;
