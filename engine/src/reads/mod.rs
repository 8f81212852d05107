//! Memory for reads.
//!
//! Owns: one budget for all that is read for clients ([`ReadPool`]), what each client has of it ([`ReadAccount`]), and who gives way.
//! Refuses: files and checksums; `segment` reads and checks.
//!
//! Invariant: a client that takes nothing holds one window for each answer at most, within its account's share, and loses it when
//! others need it.

mod account;
mod ahead;
mod budget;
mod pool;

pub use account::{HeldBytes, ReadAccount, Reading};
pub(crate) use ahead::Ahead;
pub use budget::Lane;
pub use pool::ReadPool;
