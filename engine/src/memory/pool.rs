//! Blocks of memory under the budget.
//!
//! Owns: [`ReadPool`] and its free blocks, [`Reading`]. Refuses: waiting for the budget (`shared`).
//!
//! Invariants: blocks in use and blocks that are kept are together no more than the budget. A block is free again when
//! the last owner of its bytes drops them. Of free blocks, a part of the budget is kept; the others are returned to the
//! system.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Poll, ready};
use std::time::Duration;

use super::account::{Gate, HeldBytes, MemoryAccount};
use super::budget::MemoryPriority;
use super::mapped::CheckedWindow;
use super::read_ahead::ReadAhead;
use super::shared::{MemoryBudget, Permit};
use crate::buffer::{Block, BlockOwner, Buffer};
use crate::io::Clock;
use crate::limits::{CHUNK_BYTES, READ_BUDGET_BYTES_MIN, READ_BYTES_MAX};
use crate::sync::Mutex;

/// Sizes of blocks; a read takes the smallest that fits.
const CLASSES: [usize; 6] = [
    16 << 10,
    64 << 10,
    128 << 10,
    256 << 10,
    512 << 10,
    READ_BYTES_MAX,
];
/// A window takes at most this part of what is left, so that the first readers leave room for many more.
const WINDOW_PART: usize = 32;
/// Largest blob, in bytes, that is verified with memory of the reserve, like a small answer.
const SMALL_BYTES: u64 = 64 << 10;
/// Part of the budget up to which free blocks are kept, so that an hour of many readers does not hold memory for good.
const KEPT_PART: usize = 4;

/// A budget for reads, and blocks to read into. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ReadPool {
    memory: MemoryBudget,
    blocks: Arc<Mutex<Blocks>>,
}

/// Blocks that are not in use.
#[derive(Debug, Default)]
struct Blocks {
    classes: [Vec<Block>; CLASSES.len()],
    bytes: usize,
    kept_max: usize,
}

impl ReadPool {
    /// Creates a pool that never has more than `bytes`. A client that takes nothing for `stall` loses memory to
    /// those that wait.
    pub(crate) fn new(bytes: usize, stall: Duration, clock: Arc<dyn Clock>) -> Self {
        let total = bytes.max(READ_BUDGET_BYTES_MIN);
        let share = (total / 16).max(READ_BYTES_MAX);
        Self {
            memory: MemoryBudget::new(total, share, stall, clock),
            blocks: Arc::new(Mutex::new(Blocks {
                kept_max: total / KEPT_PART,
                ..Blocks::default()
            })),
        }
    }

    /// Returns the budget.
    pub(crate) fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// Returns the size of a window for a reader that would take `wanted` bytes, in whole chunks. It is smaller when
    /// memory is short.
    pub(crate) fn window_bytes(&self, wanted: u64) -> u64 {
        let chunk = CHUNK_BYTES as u64;
        let part = (self.memory.spare_bytes() / WINDOW_PART) as u64;
        wanted.min(part / chunk * chunk).max(chunk)
    }

    /// Returns whether there is room to read a window of `bytes` ahead.
    pub(crate) fn has_room_ahead(&self, reading: &Reading, bytes: u64) -> bool {
        let account = reading.account.as_ref().map(MemoryAccount::id);
        let block = CLASSES.into_iter().find(|size| *size as u64 >= bytes);
        let block = block.unwrap_or(READ_BYTES_MAX);
        self.memory
            .with(|budget| budget.has_room_ahead(account, block))
    }

    /// Notes that `ahead` may be dropped when memory is short.
    pub(crate) fn note_ahead(&self, reading: &Reading, ahead: &Arc<dyn ReadAhead>) {
        if let Some(account) = &reading.account {
            self.memory.with(|budget| budget.ahead(account.id(), ahead));
        }
    }

    /// Waits for a buffer with room for exactly `limit` bytes.
    ///
    /// # Panics
    /// If `limit` is more than [`READ_BYTES_MAX`].
    pub(crate) async fn take(&self, limit: usize, reading: &Reading) -> Buffer {
        let class = CLASSES.iter().position(|size| *size >= limit);
        let Some((class, size)) = class.and_then(|c| CLASSES.get(c).map(|s| (c, *s))) else {
            unreachable!("a buffer of {limit} bytes was asked for; see CLASSES")
        };
        let account = reading.account.as_ref();
        let permit = self.memory.acquire(reading.priority, account, size).await;
        let room = self.memory.free_bytes();
        let kept = self.blocks.lock().take(class, room);
        let block = kept.unwrap_or_else(|| Block::new(size));
        let owner = PooledBlock {
            blocks: Arc::clone(&self.blocks),
            gate: Arc::clone(&reading.gate),
            permit,
        };
        Buffer::pooled(block, limit, Box::new(owner))
    }

    /// Waits for room for a window of `bytes` that is mapped. It counts like one that is copied, so that the same rules
    /// decide which client may have one.
    pub(crate) async fn hold_mapped(&self, bytes: usize, reading: &Reading) -> HeldBytes {
        let account = reading.account.as_ref();
        let mut permit = self.memory.acquire(reading.priority, account, bytes).await;
        permit.deliver(Some(&reading.gate));
        HeldBytes::new(permit)
    }
}

impl Blocks {
    /// Takes a kept block of a class, and frees others until no more than `room` is kept.
    fn take(&mut self, class: usize, room: usize) -> Option<Block> {
        let block = self.classes.get_mut(class).and_then(Vec::pop);
        self.bytes -= block.as_ref().map_or(0, Block::len);
        for kept in self.classes.iter_mut().rev() {
            while self.bytes > room
                && let Some(gone) = kept.pop()
            {
                self.bytes -= gone.len();
            }
        }
        block
    }

    /// Keeps a block, or returns it if enough are kept.
    fn put_back(&mut self, block: Block) -> Option<Block> {
        let class = CLASSES.iter().position(|size| *size == block.len());
        if self.bytes + block.len() <= self.kept_max
            && let Some(kept) = class.and_then(|class| self.classes.get_mut(class))
        {
            self.bytes += block.len();
            kept.push(block);
            return None;
        }
        Some(block)
    }
}

/// A block that is in use.
#[derive(Debug)]
struct PooledBlock {
    blocks: Arc<Mutex<Blocks>>,
    gate: Arc<Gate>,
    permit: Permit,
}

impl BlockOwner for PooledBlock {
    fn deliver(&mut self) {
        self.permit.deliver(Some(&self.gate));
    }

    fn return_block(&mut self, block: Block) {
        // A block that is not kept is dropped without the lock.
        let gone = self.blocks.lock().put_back(block);
        drop(gone);
    }
}

/// The client of a read, and the order of its windows.
#[derive(Debug, Clone)]
pub struct Reading {
    priority: MemoryPriority,
    account: Option<MemoryAccount>,
    gate: Arc<Gate>,
}

impl Reading {
    /// Describes a read of the engine or its owner, which drops what it gets at once. No client can delay it.
    pub(crate) fn internal() -> Self {
        Self {
            priority: MemoryPriority::Urgent,
            account: None,
            gate: Arc::default(),
        }
    }

    /// Describes such a read of a whole blob of `length` bytes; unless it is small, it leaves the reserve to others.
    pub fn content(length: u64) -> Self {
        let priority = if length <= SMALL_BYTES {
            MemoryPriority::Urgent
        } else {
            MemoryPriority::Bulk
        };
        Self {
            priority,
            ..Self::internal()
        }
    }

    /// Describes an answer to a client. The next window is read once the client took the one before.
    pub fn answer(account: &MemoryAccount, priority: MemoryPriority) -> Self {
        Self {
            priority,
            account: Some(account.clone()),
            gate: Arc::default(),
        }
    }

    /// Returns whether its windows may be mapped.
    pub(crate) fn may_map(&self) -> bool {
        let account = self.account.as_ref();
        account.is_some_and(|account| account.mapped().is_allowed())
    }

    /// Notes a window that was mapped.
    pub(crate) fn note_mapped(&self, window: Weak<dyn CheckedWindow>) {
        if let Some(account) = &self.account {
            account.mapped().add(window);
        }
    }

    /// Waits until the client took the window before, so that it never holds two of one answer.
    pub(crate) async fn turn(&self) {
        poll_fn(|context| {
            let mut gate = self.gate.lock();
            if let Some(taken) = gate.as_mut() {
                // The sender is dropped with the window, and never sends.
                let _closed = ready!(Pin::new(taken).poll(context));
                *gate = None;
            }
            Poll::Ready(())
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::io::TaskFuture;

    const STALL: Duration = Duration::from_secs(2);

    /// A clock whose sleeps end at their second poll, because the tests poll by hand.
    #[derive(Debug, Default)]
    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
        fn wall_unix_ms(&self) -> u64 {
            0
        }
        fn sleep(&self, _: Duration) -> TaskFuture {
            let mut polled = false;
            Box::pin(poll_fn(move |_| {
                if std::mem::replace(&mut polled, true) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            }))
        }
    }

    fn pool() -> (ReadPool, Arc<HandClock>) {
        let clock = Arc::new(HandClock::default());
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        (ReadPool::new(4 << 20, STALL, shared), clock)
    }

    fn window(pool: &ReadPool, reading: &Reading) -> Option<Bytes> {
        let taken = pool.take(1 << 20, reading).now_or_never();
        taken.map(Buffer::freeze)
    }

    /// Guards: bytes return to the budget when the last view of them drops; blocks are used again, and only a part of
    /// the budget is kept.
    #[test]
    fn a_dropped_buffer_returns_its_bytes_to_the_budget() {
        let (pool, _) = pool();
        let reading = Reading::internal();
        let before = pool.memory.free_bytes();
        let buffer = pool.take(100_000, &reading).now_or_never().unwrap();
        assert_eq!(buffer.room(), 100_000);
        assert_eq!(pool.memory.free_bytes(), before - (128 << 10));
        let bytes = buffer.freeze();
        let view = bytes.clone();
        drop(bytes);
        assert!(pool.memory.free_bytes() < before);
        drop(view);
        assert_eq!(pool.memory.free_bytes(), before);
        assert_eq!(pool.blocks.lock().bytes, 128 << 10);
        // Blocks of other sizes are not kept beyond the budget.
        let all: Vec<Bytes> = std::iter::repeat_with(|| window(&pool, &reading).unwrap())
            .take(4)
            .collect();
        assert_eq!(pool.blocks.lock().bytes, 0);
        drop(all);
        assert_eq!(pool.blocks.lock().bytes, 1 << 20);
    }

    /// Guards: an answer has one window at a time, and its next read waits until the client took the one before.
    #[test]
    fn windows_of_an_answer_leave_one_by_one() {
        let (pool, _) = pool();
        let reading = Reading::answer(&pool.memory.account(), MemoryPriority::Bulk);
        reading.turn().now_or_never().unwrap();
        let first = window(&pool, &reading).unwrap();
        let mut turn = std::pin::pin!(reading.turn());
        assert!(turn.as_mut().now_or_never().is_none());
        drop(first);
        turn.now_or_never().expect("its turn");
    }

    /// Guards: when memory is used up, a stalled client is revoked, and the waiting read gets its bytes. A wait that is
    /// given up leaves nothing behind.
    #[test]
    fn a_stalled_client_gives_way() {
        let (pool, clock) = pool();
        let before = pool.memory.free_bytes();
        let clients: Vec<MemoryAccount> = std::iter::repeat_with(|| pool.memory.account())
            .take(3)
            .collect();
        let mut windows: Vec<Bytes> = clients
            .iter()
            .map(|client| window(&pool, &Reading::answer(client, MemoryPriority::Bulk)).unwrap())
            .collect();
        let other = Reading::answer(&pool.memory.account(), MemoryPriority::Bulk);
        let mut given_up = Box::pin(pool.take(1 << 20, &other));
        let mut waiting = Box::pin(pool.take(1 << 20, &other));
        assert!(given_up.as_mut().now_or_never().is_none());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(given_up);
        let revoked = || {
            clients
                .iter()
                .filter(|client| client.revoked().now_or_never().is_some())
                .count()
        };
        clock.0.store(3, Ordering::Relaxed);
        clients[1].record_progress();
        clients[2].record_progress();
        assert_eq!(revoked(), 0);
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(revoked(), 1);
        clients[0]
            .revoked()
            .now_or_never()
            .expect("the stalled one");
        windows.remove(0);
        let served = waiting.as_mut().now_or_never().expect("its turn");
        drop(waiting);
        drop((served, windows, clients, other));
        assert_eq!(pool.memory.free_bytes(), before);
        assert!(pool.memory.with(|budget| budget.has_no_accounts()));
    }
}
