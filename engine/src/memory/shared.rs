//! Waits for memory of the budget.
//!
//! Owns: [`MemoryBudget`] and [`Permit`]. Refuses: the decision which wait is served (`budget`), and blocks (`pool`).
//!
//! Invariant: a wait that is given up leaves nothing behind.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::account::{Gate, MemoryAccount, Signals};
use super::budget::{Budget, Id, MemoryPriority};
use crate::io::Clock;
use crate::sync::{Mutex, oneshot};

/// Bounds of the time after which a waiter checks again whether a client can be revoked.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// With many waiters, each checks less often: as many of them together as one alone, and each at least this often.
const SCANNING_WAITERS: u32 = 32;
const PAUSE_OF_MANY_MAX: Duration = Duration::from_secs(1);

/// A budget of memory that clients share. Cheap to clone.
#[derive(Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    budget: Mutex<Budget>,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("free", &self.free_bytes())
            .finish_non_exhaustive()
    }
}

impl MemoryBudget {
    /// Creates a budget of `bytes`. One account has at most `share` of it, or the bytes of one wait if they are more. A
    /// client on which nothing moves for `stall` loses memory to those that wait.
    pub fn new(bytes: usize, share: usize, stall: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                budget: Mutex::new(Budget::new(bytes, share, stall)),
            }),
        }
    }

    /// Opens an account for a client.
    pub fn account(&self) -> MemoryAccount {
        MemoryAccount::open(self.clone())
    }

    /// Returns the bytes that are not held.
    pub(crate) fn free_bytes(&self) -> usize {
        self.with(|budget| budget.free())
    }

    /// Returns the bytes that bulk reads may take at once: none while others wait for them.
    pub(super) fn spare_bytes(&self) -> usize {
        self.with(|budget| budget.spare())
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Budget) -> T) -> T {
        act(&mut self.shared.budget.lock())
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    pub(super) fn open(&self, signals: Arc<Signals>) -> Id {
        self.with(|budget| budget.open(signals))
    }

    /// Waits for a part of the budget, at most all but the reserve.
    pub(super) async fn acquire(
        &self,
        priority: MemoryPriority,
        account: Option<&MemoryAccount>,
        bytes: usize,
    ) -> Permit {
        let id = account.map(MemoryAccount::id);
        let (bytes, window, asked) = self.with(|budget| {
            let bytes = bytes.min(budget.bulk());
            let asked = budget.ask(priority, id, bytes);
            (bytes, budget.next_id(), asked)
        });
        if let Some(granted) = asked.granted {
            let waiting = PendingWait {
                memory: self,
                waiter: asked.id,
                priority: asked.priority,
                account: id,
                bytes,
                over: false,
            };
            self.wait(waiting, granted).await;
        }
        Permit {
            memory: self.clone(),
            account: account.cloned(),
            window,
            priority: asked.priority,
            bytes,
            taken: None,
        }
    }

    async fn wait(&self, mut waiting: PendingWait<'_>, mut granted: oneshot::Receiver<()>) {
        loop {
            self.relieve(waiting.account);
            let looked = self.shared.clock.sleep(self.with(|budget| pause(budget)));
            // The budget keeps the sender until it grants.
            if let Either::Left(_) = select(&mut granted, looked).await {
                waiting.over = true;
                return;
            }
        }
    }

    /// Frees read-ahead and revokes clients as the budget decides; `asking` is the account that waits.
    fn relieve(&self, asking: Option<Id>) {
        let now = self.shared.clock.monotonic();
        let relief = self.with(|budget| budget.relieve(now, asking));
        for ahead in relief.ahead {
            ahead.give_up();
        }
        for revoked in relief.revoked {
            revoked.revoke();
        }
    }

    /// Revokes the client with an open file that took nothing for the longest time, unless a file is about to be closed
    /// already.
    pub(crate) fn revoke_for_file(&self) {
        let now = self.shared.clock.monotonic();
        let revoked = self.with(|budget| budget.longest_stalled_with_file(now));
        revoked.inspect(|revoked| revoked.revoke());
    }

    /// Returns the time after which a client that takes nothing may be revoked.
    pub(crate) fn stall(&self) -> Duration {
        self.with(|budget| budget.stall())
    }

    fn release(&self, account: Option<Id>, priority: MemoryPriority, bytes: usize) {
        grant(self.with(|budget| budget.release(account, priority, bytes)));
    }
}

/// Returns how long a waiter waits before it checks again.
fn pause(budget: &Budget) -> Duration {
    let many = u32::try_from(budget.waiting()).unwrap_or(u32::MAX) / SCANNING_WAITERS;
    let pause = (budget.stall() / 8).clamp(PAUSE_MIN, PAUSE_MAX);
    pause.saturating_mul(1 + many).min(PAUSE_OF_MANY_MAX)
}

/// Notifies the waiters that were granted their bytes.
fn grant(granted: Vec<oneshot::Sender<()>>) {
    for grant in granted {
        // A waiter that has gone returns the bytes when it drops.
        grant.send(()).unwrap_or_default();
    }
}

/// A wait that may be given up.
struct PendingWait<'a> {
    memory: &'a MemoryBudget,
    waiter: Id,
    priority: MemoryPriority,
    account: Option<Id>,
    bytes: usize,
    over: bool,
}

impl Drop for PendingWait<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let withdrawn = self
            .memory
            .with(|budget| budget.withdraw(self.account, self.waiter));
        match withdrawn {
            Some(granted) => grant(granted),
            // It was granted just now.
            None => self.memory.release(self.account, self.priority, self.bytes),
        }
    }
}

/// Bytes of the budget, returned when it drops.
#[derive(Debug)]
pub(super) struct Permit {
    memory: MemoryBudget,
    account: Option<MemoryAccount>,
    window: Id,
    priority: MemoryPriority,
    bytes: usize,
    /// Dropped with the bytes, which resolves the gate of the answer.
    taken: Option<oneshot::Sender<()>>,
}

impl Permit {
    /// Notes that the client has the bytes. `gate`, for bytes read from a file, resolves when they are returned.
    pub(super) fn deliver(&mut self, gate: Option<&Gate>) {
        self.note_delivered(gate.is_some());
        if let (Some(gate), Some(_)) = (gate, &self.account) {
            let (taken, gone) = oneshot::channel();
            *gate.lock() = Some(gone);
            self.taken = Some(taken);
        }
    }

    /// Notes that the bytes wait for the client from now on.
    pub(super) fn note_delivered(&self, has_file: bool) {
        if let Some(account) = &self.account {
            let now = self.memory.clock().monotonic();
            self.memory
                .with(|budget| budget.delivered(account.id(), self.window, now, has_file));
        }
    }

    /// Returns what is beyond `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let beyond = self.bytes.saturating_sub(bytes);
        if beyond > 0 {
            self.bytes -= beyond;
            let account = self.account.as_ref().map(MemoryAccount::id);
            self.memory.release(account, self.priority, beyond);
        }
    }

    /// Notes that the bytes no longer wait for the client.
    pub(super) fn settle(&self) {
        if let Some(account) = &self.account {
            self.memory
                .with(|budget| budget.settled(account.id(), self.window));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let account = self.account.as_ref().map(MemoryAccount::id);
        grant(self.memory.with(|budget| {
            if let Some(account) = account {
                budget.settled(account, self.window);
            }
            budget.release(account, self.priority, self.bytes)
        }));
    }
}
