//! When stored bytes are read again.
//!
//! Owns: the rules, pure: [`Schedule`]. Refuses: reading (`segment::verifier`) and the pass over the store
//! (`store::scrub`).

mod schedule;

pub(crate) use schedule::Schedule;
