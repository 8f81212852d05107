//! Read buffers: owned blocks of memory, drawn from one pool under one byte budget.
//!
//! Owns: [`Buffer`], [`BufferPool`] and the global budget for reads.
//! Refuses: growing past the budget; a taker waits instead.
//!
//! Invariants: bytes between `len` and the limit are initialised memory (never secrets of another
//! request: only `..len` is ever exposed). A buffer returns to its pool when the last owner drops it.

use std::sync::Arc;

use crate::sync::Mutex;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Sizes of pooled blocks; a request takes the smallest class that fits.
const CLASSES: [usize; 4] = [16 << 10, 128 << 10, 512 << 10, LARGEST_BYTES];
/// The largest block.
const LARGEST_BYTES: usize = 2 << 20;
/// Unit of the budget's semaphore, so that its permits fit in 32 bits.
const UNIT_BYTES: usize = 4 << 10;

/// An owned block of memory that is filled from the front.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    limit: usize,
    home: Option<Home>,
}

#[derive(Debug)]
struct Home {
    pool: Arc<PoolShared>,
    // Held for its drop: gives the bytes back to the budget.
    _permit: OwnedSemaphorePermit,
}

impl Buffer {
    /// A buffer of its own, outside any pool: for headers, tables and offline tools.
    pub fn unpooled(limit: usize) -> Self {
        Self {
            bytes: vec![0; limit],
            len: 0,
            limit,
            home: None,
        }
    }

    /// Bytes filled so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was filled yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that may still be added.
    pub fn room(&self) -> usize {
        self.limit - self.len
    }

    /// The filled part.
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The free part, for a backend to read into; report with [`Buffer::advance`].
    pub fn free_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.len..self.limit).unwrap_or_default()
    }

    /// Counts `count` bytes of the free part as filled.
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.room(),
            "a backend filled more than it was given"
        );
        self.len += count;
    }

    /// Turns the filled part into shared bytes without a copy.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.pool.put_back(std::mem::take(&mut self.bytes));
        }
    }
}

/// The budget and the free blocks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BufferPool {
    shared: Arc<PoolShared>,
}

#[derive(Debug)]
struct PoolShared {
    budget: Arc<Semaphore>,
    budget_bytes: usize,
    free: Mutex<Vec<Vec<Vec<u8>>>>,
}

impl PoolShared {
    fn put_back(&self, block: Vec<u8>) {
        if let Some(class) = CLASSES.iter().position(|size| *size == block.len())
            && let Some(list) = self.free.lock().get_mut(class)
        {
            list.push(block);
        }
    }
}

impl BufferPool {
    /// A pool that never has more than `budget_bytes` out at once.
    pub fn new(budget_bytes: usize) -> Self {
        let budget_bytes = budget_bytes.max(2 * LARGEST_BYTES);
        Self {
            shared: Arc::new(PoolShared {
                budget: Arc::new(Semaphore::new(budget_bytes / UNIT_BYTES)),
                budget_bytes,
                free: Mutex::new(vec![Vec::new(); CLASSES.len()]),
            }),
        }
    }

    /// Bytes that are not handed out at the moment.
    pub fn available_bytes(&self) -> usize {
        self.shared.budget.available_permits() * UNIT_BYTES
    }

    /// The whole budget in bytes.
    pub fn budget_bytes(&self) -> usize {
        self.shared.budget_bytes
    }

    /// A buffer with room for exactly `limit` bytes; waits while the budget is used up. Requests above
    /// the largest block (2 MiB) are our own mistake.
    pub async fn take(&self, limit: usize) -> Buffer {
        let class = CLASSES.iter().position(|size| *size >= limit);
        let Some((class, size)) = class.and_then(|c| CLASSES.get(c).map(|s| (c, *s))) else {
            unreachable!("a buffer of {limit} bytes was asked for; see CLASSES")
        };
        let units = u32::try_from(size / UNIT_BYTES).unwrap_or(u32::MAX);
        let permit = match Arc::clone(&self.shared.budget)
            .acquire_many_owned(units)
            .await
        {
            Ok(permit) => permit,
            Err(closed) => unreachable!("the buffer budget is never closed: {closed}"),
        };
        let reused = self.shared.free.lock().get_mut(class).and_then(Vec::pop);
        let bytes = reused.unwrap_or_else(|| vec![0; size]);
        let home = Some(Home {
            pool: Arc::clone(&self.shared),
            _permit: permit,
        });
        Buffer {
            bytes,
            len: 0,
            limit,
            home,
        }
    }

    /// The largest buffer that [`BufferPool::take`] gives.
    pub const fn largest_bytes() -> usize {
        LARGEST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the budget is given back when the last view of the bytes drops, and blocks are reused.
    #[test]
    fn a_dropped_buffer_returns_its_bytes_to_the_budget() {
        let pool = BufferPool::new(8 << 20);
        let before = pool.available_bytes();
        let buffer = futures_util::FutureExt::now_or_never(pool.take(100_000)).unwrap();
        assert_eq!(buffer.room(), 100_000);
        assert_eq!(pool.available_bytes(), before - (128 << 10));
        let bytes = buffer.freeze();
        let view = bytes.clone();
        drop(bytes);
        assert!(pool.available_bytes() < before);
        drop(view);
        assert_eq!(pool.available_bytes(), before);
        assert_eq!(pool.shared.free.lock()[1].len(), 1);
    }
}
