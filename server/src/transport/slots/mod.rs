//! Connection slots of a listener, the queue for them, and the choice of connections to evict when all are taken.
//!
//! The share of an address is the number of slots divided by the number of addresses that have or want one. So it
//! matters only when all slots are taken, and never for a single address, such as a proxy's.
//!
//! Invariant: a connection of an address below its share waits for at most about `GRACE`. One of an address at its
//! share waits longer only while bytes move on every connection of that address and of those with more.

mod eviction;
mod queue;
mod recent_bytes;
mod slot;
mod table;

pub(super) use self::queue::WaitingQueue;
pub use self::queue::connections_waiting_max;
pub(super) use self::slot::Eviction;
pub(super) use self::table::{Decision, Slot, Slots};
