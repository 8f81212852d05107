//! What is read before it is asked for.
//!
//! Owns: [`Ahead`]. Its memory is the first to go when others wait: nobody has seen it yet, and it can be read again.

use std::fmt::Debug;

/// A window that is read ahead.
pub(crate) trait Ahead: Send + Sync + Debug {
    /// Memory that it holds, or will.
    fn bytes(&self) -> usize;
    /// Drops it; its owner reads it again. Called without a lock.
    fn give_up(&self);
}
