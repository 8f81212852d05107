//! Answers that are kept in memory.
//!
//! Owns: [`KeptAnswers`], their cache, and [`KeptAnswer`].
//! Refuses: which answers are kept, and which requests get them (`repeat`).

mod answer;
mod cache;

pub(super) use self::answer::{KeptAnswer, KeptBody};
pub(crate) use self::cache::KeptAnswers;
