//! The engine's outside world under `shuttle`: a disk in memory, a clock that stands, tasks that may be switched at any point.
//!
//! Empty without the feature `shuttle`.
#![cfg(feature = "shuttle")]

pub mod disk;
pub mod explore;
pub mod world;
