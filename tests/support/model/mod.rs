//! The reference model, the histories that drive it, and the checks that compare a store with it.
//!
//! | module | owns |
//! |---|---|
//! | [`operation`] [`content`] | what clients do, and the bytes they push |
//! | [`state`] | the model: what a store holds after a sequence of transactions |
//! | [`generate`] [`census`] | histories out of a seed; what was generated, counted |
//! | [`drive`] [`record`] | carries a history out against any store; what clients saw |
//! | [`found`] [`recover`] | what an open store holds; opens what a stop left |
//! | [`judge`] | is that what DURABILITY.md promises? |
//! | [`sweep`] [`recoveries`] [`damage`] [`shrink`] | one history on the simulated disk, stopped everywhere; what that left; damaged; made short |
//! | [`flips`] [`fixture`] | every byte of a store damaged in turn; stores that earlier versions wrote |
//! | [`real`] | the same history on a real folder |

pub mod census;
pub mod content;
pub mod damage;
pub mod drive;
pub mod fixture;
pub mod flips;
pub mod found;
pub mod generate;
pub mod judge;
pub mod operation;
pub mod real;
pub mod record;
pub mod recover;
pub mod recoveries;
pub mod shrink;
pub mod state;
pub mod sweep;
