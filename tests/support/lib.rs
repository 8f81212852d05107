//! Support for the tests: the simulated disk and executor, the reference model, what is fuzzed, servers on loopback.

pub mod bad_io;
pub mod client;
pub mod content;
pub mod faulty;
pub mod fuzz;
pub mod http;
pub mod linear;
pub mod machine;
pub mod model;
pub mod mount;
pub mod places;
pub mod process;
pub mod push;
pub mod registry;
pub mod say;
