//! Places for connections, those that wait for one, and the choice of those that end when all are taken.
//!
//! An address's share is all places by the number of addresses that have or want one, so it matters only when the places are taken, and
//! never for a single address, such as a proxy's.
//!
//! Invariant: a connection of an address below its share waits no longer than about `GRACE`, whatever those of others do. One of an
//! address that has its share waits longer only while something moves on every connection of that address and of those with more.

mod eviction;
mod queue;
mod recent_bytes;
mod slot;
mod table;

pub(super) use self::queue::Line;
pub use self::queue::connections_waiting_max;
pub(super) use self::slot::Leave;
pub(super) use self::table::{Next, Places, Taken};
