//! Memory that clients hold.
//!
//! Owns: [`MemoryBudget`], one for each purpose; the part of it that each client has ([`MemoryAccount`]); which clients
//! lose memory to others; [`ReadPool`], the budget and the blocks for reads of clients. Refuses: files and checksums,
//! which `segment` reads and checks; connections.
//!
//! Invariant: a client on which nothing moves holds a bounded part of a budget, and loses it when others need it. Of an
//! answer that is not taken it holds one window, and read-ahead, which it loses first.

mod account;
mod budget;
mod mapped;
mod pool;
mod read_ahead;
mod shared;

pub use account::{HeldBytes, MemoryAccount};
pub use budget::MemoryPriority;
pub(crate) use mapped::{CheckedWindow, is_surely_unchanged};
pub(crate) use pool::ReadPool;
pub use pool::Reading;
pub(crate) use read_ahead::ReadAhead;
pub use shared::MemoryBudget;
