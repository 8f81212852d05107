//! Answers that are kept in memory.
//!
//! Owns: [`KeptAnswers`], their cache, and [`KeptAnswer`].
//! Refuses: what a request and its answer must be like for that (`repeat`).

mod answer;
mod cache;

pub(super) use self::answer::{KeptAnswer, KeptBody};
pub(crate) use self::cache::KeptAnswers;
