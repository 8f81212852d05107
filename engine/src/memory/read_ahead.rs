//! Windows that are read before they are asked for.
//!
//! Owns: [`ReadAhead`]. Its memory is freed first when others wait: no client has seen it, and it can be read again.

use std::fmt::Debug;

/// A window that is read ahead.
pub(crate) trait ReadAhead: Send + Sync + Debug {
    /// Returns the bytes that it holds, or will hold.
    fn bytes(&self) -> usize;
    /// Drops the window; its owner reads it again. Called without a lock.
    fn give_up(&self);
}
