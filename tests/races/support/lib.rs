//! The environment of the engine under `shuttle`: a disk in memory, a clock that tests advance, tasks that may be
//! switched at any point.
//!
//! The crate is empty without the feature `shuttle`.
#![cfg(feature = "shuttle")]

pub mod disk;
pub mod explore;
pub mod world;
