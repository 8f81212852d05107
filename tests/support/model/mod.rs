//! The reference model, the histories that drive it, and the checks that compare a store with it.
//!
//! | module | owns |
//! |---|---|
//! | [`operation`] [`content`] | operations of clients, and the bytes that they push |
//! | [`state`] | the model: the state of a store after a sequence of transactions |
//! | [`generate`] [`census`] | histories generated from a seed; counts of what was generated |
//! | [`drive`] [`record`] | runs a history on any store; records what clients saw |
//! | [`found`] [`recover`] | the content of an open store; opens what a stop left |
//! | [`timeline`] | checks that against DURABILITY.md |
//! | [`sweep`] [`recoveries`] | one history on the simulated disk, stopped everywhere; what the stops left |
//! | [`damage`] [`shrink`] | damaged stores; shorter histories of a failure |
//! | [`flips`] [`fixture`] | every byte of a store flipped in turn; stores of earlier versions |
//! | [`real`] | the same history in a real directory |

pub mod census;
pub mod content;
pub mod damage;
pub mod drive;
pub mod fixture;
pub mod flips;
pub mod found;
pub mod generate;
pub mod operation;
pub mod real;
pub mod record;
pub mod recover;
pub mod recoveries;
pub mod shrink;
pub mod state;
pub mod sweep;
pub mod timeline;
