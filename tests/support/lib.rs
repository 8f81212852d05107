//! Support for the tests: the simulated disk and executor, the reference model, fuzz targets, servers on loopback.

pub mod batches;
pub mod by_name;
pub mod client;
pub mod content;
pub mod faulty;
pub mod fuzz;
pub mod http;
pub mod linear;
pub mod model;
pub mod mount;
pub mod process;
pub mod push;
pub mod registry;
pub mod say;
pub mod uring;
pub mod whole_blobs;

pub use batches::batch_of;
pub use tonnage_machine as machine;
