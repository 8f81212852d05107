//! Waiting for the budget.
//!
//! Owns: [`MemoryBudget`] and [`Permit`]. Refuses: deciding who is served (`budget`), and blocks (`pool`).
//!
//! Invariant: a wait that is given up leaves nothing behind.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::account::{Gate, MemoryAccount, Signals};
use super::budget::{Budget, Id, Lane};
use crate::io::Clock;
use crate::sync::{Mutex, oneshot};

/// Who waits looks again whether somebody may be told to give way, so often.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Where many wait, each looks less often: so many of them as often as one, but each at least this often.
const LOOKERS: u32 = 32;
const PAUSE_OF_MANY_MAX: Duration = Duration::from_secs(1);

/// Memory that clients hold, all together. Cheap to clone.
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
    /// A budget of `bytes`, of which one account has at most `share`, or the bytes of one wait, if they are more. A client on which
    /// nothing moves for `stall` gives way to those who wait.
    pub fn new(bytes: usize, share: usize, stall: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                budget: Mutex::new(Budget::new(bytes, share, stall)),
            }),
        }
    }

    /// An account for a client.
    pub fn account(&self) -> MemoryAccount {
        MemoryAccount::open(self.clone())
    }

    /// Bytes that nobody holds at the moment.
    pub(crate) fn free_bytes(&self) -> usize {
        self.with(|budget| budget.free())
    }

    /// The whole budget in bytes.
    pub(crate) fn total_bytes(&self) -> usize {
        self.with(|budget| budget.total())
    }

    /// Bytes that bulk reads may have at once; none while others wait for them.
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

    /// Waits for a part of the budget. More than all but the reserve is cut to that.
    pub(super) async fn acquire(
        &self,
        lane: Lane,
        account: Option<&MemoryAccount>,
        bytes: usize,
    ) -> Permit {
        let id = account.map(MemoryAccount::id);
        let (bytes, window, asked) = self.with(|budget| {
            let bytes = bytes.min(budget.bulk());
            let asked = budget.ask(lane, id, bytes);
            (bytes, budget.next_id(), asked)
        });
        if let Some(granted) = asked.granted {
            let waiting = Waiting {
                memory: self,
                waiter: asked.id,
                lane: asked.lane,
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
            lane: asked.lane,
            bytes,
            taken: None,
        }
    }

    async fn wait(&self, mut waiting: Waiting<'_>, mut granted: oneshot::Receiver<()>) {
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

    /// Makes those give way who have to, if anybody waits; `asking` does.
    fn relieve(&self, asking: Option<Id>) {
        let now = self.shared.clock.monotonic();
        let relief = self.with(|budget| budget.relieve(now, asking));
        for ahead in relief.ahead {
            ahead.give_up();
        }
        for told in relief.told {
            told.revoke();
        }
    }

    /// Tells the client with an open file that took nothing for the longest time to let go, unless a file is on its way already.
    pub(crate) fn revoke_for_file(&self) {
        let now = self.shared.clock.monotonic();
        let told = self.with(|budget| budget.longest_stalled_with_file(now));
        told.inspect(|told| told.revoke());
    }

    /// Time after which a client that takes nothing may be told so.
    pub(crate) fn stall(&self) -> Duration {
        self.with(|budget| budget.stall())
    }

    fn release(&self, account: Option<Id>, lane: Lane, bytes: usize) {
        grant(self.with(|budget| budget.release(account, lane, bytes)));
    }
}

/// How long one of those who wait waits before it looks again.
fn pause(budget: &Budget) -> Duration {
    let many = u32::try_from(budget.waiting()).unwrap_or(u32::MAX) / LOOKERS;
    let pause = (budget.stall() / 8).clamp(PAUSE_MIN, PAUSE_MAX);
    pause.saturating_mul(1 + many).min(PAUSE_OF_MANY_MAX)
}

/// Tells those who were granted what they waited for.
fn grant(granted: Vec<oneshot::Sender<()>>) {
    for grant in granted {
        // Who went meanwhile gives it back as it goes.
        grant.send(()).unwrap_or_default();
    }
}

/// A wait that may be given up.
struct Waiting<'a> {
    memory: &'a MemoryBudget,
    waiter: Id,
    lane: Lane,
    account: Option<Id>,
    bytes: usize,
    over: bool,
}

impl Drop for Waiting<'_> {
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
            None => self.memory.release(self.account, self.lane, self.bytes),
        }
    }
}

/// Bytes of the budget, until it drops.
#[derive(Debug)]
pub(super) struct Permit {
    memory: MemoryBudget,
    account: Option<MemoryAccount>,
    window: Id,
    lane: Lane,
    bytes: usize,
    /// Closes the gate of its answer when the bytes go.
    taken: Option<oneshot::Sender<()>>,
}

impl Permit {
    /// The bytes are with the client from now on; `gate`, of what was read from a file, resolves when they are back.
    pub(super) fn hand_over(&mut self, gate: Option<&Gate>) {
        self.note_handed(gate.is_some());
        if let (Some(gate), Some(_)) = (gate, &self.account) {
            let (taken, gone) = oneshot::channel();
            *gate.lock() = Some(gone);
            self.taken = Some(taken);
        }
    }

    /// The bytes are waited for from now on.
    pub(super) fn note_handed(&self, has_file: bool) {
        if let Some(account) = &self.account {
            let now = self.memory.clock().monotonic();
            self.memory
                .with(|budget| budget.handed(account.id(), self.window, now, has_file));
        }
    }

    /// Gives back what is beyond `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let beyond = self.bytes.saturating_sub(bytes);
        if beyond > 0 {
            self.bytes -= beyond;
            let account = self.account.as_ref().map(MemoryAccount::id);
            self.memory.release(account, self.lane, beyond);
        }
    }

    /// The client has done its part: its bytes are not waited for any more.
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
            budget.release(account, self.lane, self.bytes)
        }));
    }
}
