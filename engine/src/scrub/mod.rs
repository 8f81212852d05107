//! When stored bytes are read again, and how fast.
//!
//! Owns: the rules, pure: [`Pace`] and [`Schedule`]. Refuses: reading (`segment::verifier`) and the pass over the store
//! (`store::scrub`).

mod pace;
mod schedule;

pub(crate) use pace::Pace;
pub(crate) use schedule::Schedule;
