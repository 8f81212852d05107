//! Support for the tests: the simulated disk and executor, the reference model, servers on loopback.

pub mod client;
pub mod registry;
pub mod sim;
