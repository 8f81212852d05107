//! Memory for what clients send faster than it is taken in.
//!
//! Owns: [`ReceiveMemory`]. hyper keeps a buffer for what it reads on each connection of HTTP/1.1, which never shrinks, and the unread
//! frames of HTTP/2. For a fast push both have to be large; for many slow ones they must be small. So a connection begins with a small
//! part, and a bounded number of them have a large one, until they end. Those that are idle end for others that want one (`places`): hyper
//! cannot make the windows of a connection smaller.
//! Refuses: waiting; who gets no large part goes on with the small one, and slower.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// For the large parts of all connections of a listener together.
const RECEIVE_BYTES: usize = 64 << 20;
/// What one read may take of a connection's first bytes, and of all of them while memory is short. Its buffer is twice as large.
pub(super) const NARROW_READ_BYTES: usize = 16 << 10;
/// What one read may take otherwise.
pub(super) const WIDE_READ_BYTES: usize = 512 << 10;

/// The budget.
#[derive(Debug)]
pub(super) struct ReceiveMemory {
    room: Arc<Semaphore>,
}

/// A large part, until it drops.
#[derive(Debug)]
pub(super) struct WideReceive {
    #[expect(dead_code, reason = "held for its drop")]
    room: OwnedSemaphorePermit,
}

impl ReceiveMemory {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            room: Arc::new(Semaphore::new(RECEIVE_BYTES)),
        })
    }

    /// A large part of `bytes`, if there is one.
    pub(super) fn widen(&self, bytes: u32) -> Option<WideReceive> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).ok()?;
        Some(WideReceive { room })
    }
}
