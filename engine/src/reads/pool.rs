//! Blocks of memory under the budget.
//!
//! Owns: [`ReadPool`]: waiting for the budget, and the free blocks. Refuses: deciding who is served (`budget`).
//!
//! Invariants: blocks that are out and blocks that are kept are together no more than the budget; a block is free again when the last
//! owner of its bytes drops them; a wait that is given up leaves nothing behind.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::account::{Gate, ReadAccount, Reading, Signals};
use super::ahead::Ahead;
use super::budget::{Budget, Id};
use crate::buffer::{Block, Buffer, Home};
use crate::io::Clock;
use crate::limits::{CHUNK_BYTES, READ_BYTES_MAX};
use crate::sync::{Mutex, oneshot};

/// Sizes of blocks; a read takes the smallest that fits.
const CLASSES: [usize; 7] = [
    16 << 10,
    64 << 10,
    128 << 10,
    256 << 10,
    512 << 10,
    1 << 20,
    READ_BYTES_MAX,
];
/// A window may take this part of what is left, so that the first readers leave room for many more.
const WINDOW_PART: usize = 32;
/// Who waits looks again whether somebody may be told to give way, at most this often.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The budget and the free blocks. Cheap to clone.
#[derive(Clone)]
pub struct ReadPool {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    budget: Mutex<Budget>,
    blocks: Mutex<Blocks>,
}

/// Blocks that nobody uses.
#[derive(Debug, Default)]
struct Blocks {
    classes: [Vec<Block>; CLASSES.len()],
    bytes: usize,
}

impl fmt::Debug for ReadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadPool")
            .field("available", &self.available_bytes())
            .finish_non_exhaustive()
    }
}

impl ReadPool {
    /// A pool that never has more than `budget_bytes`. A client that takes nothing for `stall` gives way to those who wait.
    pub fn new(budget_bytes: usize, stall: Duration, clock: Arc<dyn Clock>) -> Self {
        let total = budget_bytes.max(2 * READ_BYTES_MAX);
        Self {
            shared: Arc::new(Shared {
                clock,
                budget: Mutex::new(Budget::new(total, READ_BYTES_MAX, stall)),
                blocks: Mutex::default(),
            }),
        }
    }

    /// An account for a client.
    pub fn account(&self) -> ReadAccount {
        ReadAccount::open(self.clone())
    }

    /// Bytes that are not handed out at the moment.
    pub fn available_bytes(&self) -> usize {
        self.shared.budget.lock().free()
    }

    /// The whole budget in bytes.
    pub fn budget_bytes(&self) -> usize {
        self.shared.budget.lock().total()
    }

    /// The size of a window for a reader that would take `wanted` bytes, in whole chunks: smaller when memory is short.
    pub(crate) fn window_bytes(&self, wanted: u64) -> u64 {
        let chunk = CHUNK_BYTES as u64;
        let part = (self.shared.budget.lock().spare() / WINDOW_PART) as u64;
        wanted.min(part / chunk * chunk).max(chunk)
    }

    /// Whether there is room to read what was not asked for yet.
    pub(crate) fn is_roomy(&self) -> bool {
        let budget = self.shared.budget.lock();
        budget.spare() >= budget.total() / 2
    }

    /// A buffer with room for exactly `limit` bytes; waits while the budget is used up. More than
    /// [`READ_BYTES_MAX`] is our own mistake.
    pub async fn take(&self, limit: usize, reading: &Reading) -> Buffer {
        let class = CLASSES.iter().position(|size| *size >= limit);
        let Some((class, size)) = class.and_then(|c| CLASSES.get(c).map(|s| (c, *s))) else {
            unreachable!("a buffer of {limit} bytes was asked for; see CLASSES")
        };
        let permit = self.acquire(size, reading).await;
        let room = self.available_bytes();
        let kept = self.shared.blocks.lock().take(class, room);
        let block = kept.unwrap_or_else(|| Block::new(size));
        Buffer::at_home(block, limit, Box::new(permit))
    }

    /// Waits for a part of the budget.
    pub(super) async fn acquire(&self, bytes: usize, reading: &Reading) -> Permit {
        let account = reading.account().cloned();
        let (id, budget) = (account.as_ref().map(ReadAccount::id), &self.shared.budget);
        let (bytes, window, asked) = {
            let mut budget = budget.lock();
            let bytes = bytes.min(budget.bulk());
            let asked = budget.ask(reading.lane(), id, bytes);
            (bytes, budget.next_id(), asked)
        };
        if let Some((waiter, granted)) = asked {
            self.wait(waiter, id, bytes, granted).await;
        }
        Permit {
            pool: self.clone(),
            account,
            window,
            bytes,
            gate: Arc::clone(reading.gate()),
            taken: None,
        }
    }

    async fn wait(
        &self,
        waiter: Id,
        account: Option<Id>,
        bytes: usize,
        mut granted: oneshot::Receiver<()>,
    ) {
        let mut waiting = Waiting {
            pool: self,
            waiter,
            account,
            bytes,
            over: false,
        };
        let pause = self.shared.budget.lock().stall() / 8;
        let pause = pause.clamp(PAUSE_MIN, PAUSE_MAX);
        loop {
            self.relieve();
            let looked = self.shared.clock.sleep(pause);
            // The budget keeps the sender until it grants.
            if let Either::Left(_) = select(&mut granted, looked).await {
                waiting.over = true;
                return;
            }
        }
    }

    /// Makes those give way who have to, if anybody waits.
    fn relieve(&self) {
        let relief = {
            let mut budget = self.shared.budget.lock();
            if !budget.is_short() {
                return;
            }
            let now = self.shared.clock.monotonic();
            budget.relieve(now)
        };
        for ahead in relief.ahead {
            ahead.give_up();
        }
        for told in relief.told {
            told.revoke();
        }
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    pub(super) fn open(&self, signals: Arc<Signals>) -> Id {
        self.shared.budget.lock().open(signals)
    }

    pub(super) fn close(&self, account: Id) {
        self.shared.budget.lock().close(account);
    }

    /// Notes that `ahead` may be dropped when memory is short.
    pub(crate) fn note_ahead(&self, reading: &Reading, ahead: &Arc<dyn Ahead>) {
        if let Some(account) = reading.account() {
            self.shared.budget.lock().ahead(account.id(), ahead);
        }
    }

    fn release(&self, account: Option<Id>, window: Id, bytes: usize) {
        let granted = self.shared.budget.lock().release(account, window, bytes);
        grant(granted);
    }
}

/// Tells those who were granted what they waited for.
fn grant(granted: Vec<oneshot::Sender<()>>) {
    for grant in granted {
        // Who went meanwhile gives it back as it goes.
        grant.send(()).unwrap_or_default();
    }
}

impl Blocks {
    /// A kept block of a class, and no more kept than `room` beside it.
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

    fn put_back(&mut self, block: Block) {
        let class = CLASSES.iter().position(|size| *size == block.len());
        if let Some(kept) = class.and_then(|class| self.classes.get_mut(class)) {
            self.bytes += block.len();
            kept.push(block);
        }
    }
}

/// A wait that may be given up.
struct Waiting<'a> {
    pool: &'a ReadPool,
    waiter: Id,
    account: Option<Id>,
    bytes: usize,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let withdrawn = {
            let mut budget = self.pool.shared.budget.lock();
            budget.withdraw(self.account, self.waiter)
        };
        match withdrawn {
            Some(granted) => grant(granted),
            // It was granted just now.
            None => self.pool.release(self.account, 0, self.bytes),
        }
    }
}

/// Bytes of the budget, until it drops.
#[derive(Debug)]
pub(super) struct Permit {
    pool: ReadPool,
    account: Option<ReadAccount>,
    window: Id,
    bytes: usize,
    gate: Arc<Gate>,
    /// Closes the gate's receiver when the window goes.
    taken: Option<oneshot::Sender<()>>,
}

impl Home for Permit {
    fn hand_over(&mut self) {
        let Some(account) = &self.account else {
            return;
        };
        let now = self.pool.clock().monotonic();
        let mut budget = self.pool.shared.budget.lock();
        budget.handed(account.id(), self.window, now);
        drop(budget);
        let (taken, gone) = oneshot::channel();
        *self.gate.lock() = Some(gone);
        self.taken = Some(taken);
    }

    fn take_back(&mut self, block: Block) {
        self.pool.shared.blocks.lock().put_back(block);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let account = self.account.as_ref().map(ReadAccount::id);
        self.pool.release(account, self.window, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::io::TaskFuture;
    use crate::reads::Lane;

    const STALL: Duration = Duration::from_secs(2);

    /// Whose sleepers wake at their second poll: who waits is polled by hand.
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
            Box::pin(std::future::poll_fn(move |_| {
                if std::mem::replace(&mut polled, true) {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            }))
        }
    }

    fn pool() -> (ReadPool, Arc<HandClock>) {
        let clock = Arc::new(HandClock::default());
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        (ReadPool::new(8 << 20, STALL, shared), clock)
    }

    fn window(pool: &ReadPool, reading: &Reading) -> Option<Bytes> {
        let taken = pool.take(2 << 20, reading).now_or_never();
        taken.map(Buffer::freeze)
    }

    /// Guards: the budget is given back when the last view of the bytes drops, and blocks are used again.
    #[test]
    fn a_dropped_buffer_returns_its_bytes_to_the_budget() {
        let (pool, _) = pool();
        let reading = Reading::internal();
        let before = pool.available_bytes();
        let buffer = pool.take(100_000, &reading).now_or_never().unwrap();
        assert_eq!(buffer.room(), 100_000);
        assert_eq!(pool.available_bytes(), before - (128 << 10));
        let bytes = buffer.freeze();
        let view = bytes.clone();
        drop(bytes);
        assert!(pool.available_bytes() < before);
        drop(view);
        assert_eq!(pool.available_bytes(), before);
        assert_eq!(pool.shared.blocks.lock().bytes, 128 << 10);
        // Blocks of other sizes are not kept beyond the budget.
        let all: Vec<Bytes> = std::iter::repeat_with(|| window(&pool, &reading).unwrap())
            .take(4)
            .collect();
        assert_eq!(pool.shared.blocks.lock().bytes, 0);
        drop(all);
        assert_eq!(pool.shared.blocks.lock().bytes, 8 << 20);
    }

    /// Guards: an answer has one window at a time, and its next read waits until the client took the one before.
    #[test]
    fn windows_of_an_answer_leave_one_by_one() {
        let (pool, _) = pool();
        let reading = pool.account().answer(Lane::Bulk);
        reading.turn().now_or_never().unwrap();
        let first = window(&pool, &reading).unwrap();
        let mut turn = std::pin::pin!(reading.turn());
        assert!(turn.as_mut().now_or_never().is_none());
        drop(first);
        turn.now_or_never().expect("its turn");
    }

    /// Guards: when nothing is left, the client that takes nothing is told to let go once it is stalled, and who waits gets its bytes;
    /// a wait that is given up leaves nothing behind.
    #[test]
    fn a_stalled_client_gives_way() {
        let (pool, clock) = pool();
        let before = pool.available_bytes();
        let clients: Vec<ReadAccount> = std::iter::repeat_with(|| pool.account()).take(3).collect();
        let mut windows: Vec<Bytes> = clients
            .iter()
            .map(|client| window(&pool, &client.answer(Lane::Bulk)).unwrap())
            .collect();
        let other = pool.account().answer(Lane::Bulk);
        let mut given_up = Box::pin(pool.take(2 << 20, &other));
        let mut waiting = Box::pin(pool.take(2 << 20, &other));
        assert!(given_up.as_mut().now_or_never().is_none());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(given_up);
        let told = || {
            clients
                .iter()
                .filter(|client| client.revoked().now_or_never().is_some())
                .count()
        };
        clock.0.store(3, Ordering::Relaxed);
        clients[1].progressed();
        clients[2].progressed();
        assert_eq!(told(), 0);
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(told(), 1);
        clients[0]
            .revoked()
            .now_or_never()
            .expect("the stalled one");
        windows.remove(0);
        let served = waiting.as_mut().now_or_never().expect("its turn");
        drop(waiting);
        drop((served, windows, clients, other));
        assert_eq!(pool.available_bytes(), before);
        assert!(pool.shared.budget.lock().has_no_accounts());
    }
}
