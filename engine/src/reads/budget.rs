//! Who gets memory for reads, and who has to give it up.
//!
//! Owns: the arithmetic, pure: what is granted, in which order, and which clients are told to let go.
//! Refuses: waiting, clocks and blocks of memory (`pool`).
//!
//! Invariants: never more than the total is out; bulk reads leave the reserve alone; within a lane who asked first is served first; one
//! account takes no more than its share; a client is told to let go only while others wait, or the reserve is low, and only after it
//! took nothing for `stall`, the longest first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::account::Signals;
use super::ahead::Ahead;
use crate::sync::oneshot;

/// What one account may have of the reserve: small answers fit, a connection full of unread ones does not.
const URGENT_SHARE_BYTES: usize = 256 << 10;
/// A client that takes some bytes now and then, but one window in this many times `stall`, counts as stalled.
const SLOW_FACTOR: u32 = 10;

/// Which part of the budget a read may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// All of it, the reserve too: manifests and small answers.
    Urgent,
    /// All but the reserve.
    Bulk,
}

/// Number of an account or of a waiter.
pub(super) type Id = u64;

#[derive(Debug)]
pub(super) struct Budget {
    total: usize,
    reserve: usize,
    share: usize,
    stall: Duration,
    free: usize,
    urgent: Queue,
    bulk: Queue,
    accounts: HashMap<Id, Account>,
    next: Id,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiter {
    id: Id,
    lane: Lane,
    account: Option<Id>,
    bytes: usize,
    grant: oneshot::Sender<()>,
}

/// What one client has.
#[derive(Debug)]
struct Account {
    signals: Arc<Signals>,
    /// Granted to it.
    held: usize,
    /// Granted, and waiting in a lane.
    taken: usize,
    /// Waits for its own bytes to come back before it waits in a lane.
    parked: VecDeque<Waiter>,
    /// Windows that were handed over, and when.
    handed: Vec<(Id, Duration)>,
    ahead: Vec<Weak<dyn Ahead>>,
    told: bool,
}

/// What may have to be done, without the budget's lock.
#[derive(Debug, Default)]
pub(super) struct Relief {
    /// Windows read ahead, to drop.
    pub(super) ahead: Vec<Arc<dyn Ahead>>,
    /// Accounts to be told.
    pub(super) told: Vec<Arc<Signals>>,
}

impl Queue {
    fn push(&mut self, waiter: Waiter) {
        self.bytes += waiter.bytes;
        self.waiters.push_back(waiter);
    }

    fn pop_if(&mut self, fits: impl FnOnce(usize) -> bool) -> Option<Waiter> {
        if !fits(self.waiters.front()?.bytes) {
            return None;
        }
        let waiter = self.waiters.pop_front()?;
        self.bytes -= waiter.bytes;
        Some(waiter)
    }

    fn remove(&mut self, id: Id) -> Option<Waiter> {
        let place = self.waiters.iter().position(|waiter| waiter.id == id)?;
        let waiter = self.waiters.remove(place)?;
        self.bytes -= waiter.bytes;
        Some(waiter)
    }
}

impl Account {
    /// How long its client has taken nothing; for one that takes a little, a fraction of the time it has its oldest window.
    fn stalled(&self, now: Duration) -> Duration {
        let Some(oldest) = self.handed.iter().map(|(_, at)| *at).min() else {
            return Duration::ZERO;
        };
        let idle = now.saturating_sub(oldest.max(self.signals.progress()));
        idle.max(now.saturating_sub(oldest) / SLOW_FACTOR)
    }
}

impl Budget {
    /// `largest` is the largest single grant.
    pub(super) fn new(total: usize, largest: usize, stall: Duration) -> Self {
        Self {
            total,
            reserve: total / 4,
            share: (total / 16).max(largest),
            stall,
            free: total,
            urgent: Queue::default(),
            bulk: Queue::default(),
            accounts: HashMap::new(),
            next: 0,
        }
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// All but the reserve.
    pub(super) fn bulk(&self) -> usize {
        self.total - self.reserve
    }

    pub(super) fn free(&self) -> usize {
        self.free
    }

    pub(super) fn stall(&self) -> Duration {
        self.stall
    }

    /// Bytes that bulk reads may have at once; none while others wait for them.
    pub(super) fn spare(&self) -> usize {
        if self.bulk.waiters.is_empty() {
            self.free.saturating_sub(self.reserve)
        } else {
            0
        }
    }

    pub(super) fn next_id(&mut self) -> Id {
        self.next += 1;
        self.next
    }

    pub(super) fn open(&mut self, signals: Arc<Signals>) -> Id {
        let id = self.next_id();
        let account = Account {
            signals,
            held: 0,
            taken: 0,
            parked: VecDeque::new(),
            handed: Vec::new(),
            ahead: Vec::new(),
            told: false,
        };
        self.accounts.insert(id, account);
        id
    }

    /// Ends an account, which holds nothing any more.
    pub(super) fn close(&mut self, account: Id) {
        self.accounts.remove(&account);
    }

    /// Asks for `bytes`. `None`: they are granted. Otherwise they are once the receiver resolves.
    pub(super) fn ask(
        &mut self,
        lane: Lane,
        account: Option<Id>,
        bytes: usize,
    ) -> Option<(Id, oneshot::Receiver<()>)> {
        let id = self.next_id();
        let (grant, granted) = oneshot::channel();
        let mut waiter = Waiter {
            id,
            lane,
            account,
            bytes,
            grant,
        };
        if let Some(account) = account.and_then(|id| self.accounts.get_mut(&id)) {
            if account.taken + bytes > URGENT_SHARE_BYTES {
                waiter.lane = Lane::Bulk;
            }
            if account.taken > 0 && account.taken + bytes > self.share {
                account.parked.push_back(waiter);
                return Some((id, granted));
            }
            account.taken += bytes;
        }
        self.enqueue(waiter);
        // Nobody else can be granted anything by what was just added, so this is ours or none.
        match self.grant().pop() {
            Some(_ours) => None,
            None => Some((id, granted)),
        }
    }

    fn enqueue(&mut self, waiter: Waiter) {
        match waiter.lane {
            Lane::Urgent => self.urgent.push(waiter),
            Lane::Bulk => self.bulk.push(waiter),
        }
    }

    /// Serves who waits, as far as there are bytes. Who is to be told, outside of the lock.
    #[must_use]
    fn grant(&mut self) -> Vec<oneshot::Sender<()>> {
        let mut granted = Vec::new();
        loop {
            let (free, above) = (self.free, self.free.saturating_sub(self.reserve));
            let urgent = self.urgent.pop_if(|bytes| bytes <= free);
            let Some(waiter) = urgent.or_else(|| self.bulk.pop_if(|bytes| bytes <= above)) else {
                return granted;
            };
            self.free -= waiter.bytes;
            if let Some(account) = waiter.account.and_then(|id| self.accounts.get_mut(&id)) {
                account.held += waiter.bytes;
            }
            granted.push(waiter.grant);
        }
    }

    /// Takes back `bytes` that were granted, and serves who waited for them.
    #[must_use]
    pub(super) fn release(
        &mut self,
        account: Option<Id>,
        window: Id,
        bytes: usize,
    ) -> Vec<oneshot::Sender<()>> {
        self.free += bytes;
        if let Some(id) = account
            && let Some(account) = self.accounts.get_mut(&id)
        {
            account.held -= bytes;
            account.taken -= bytes;
            account.handed.retain(|(handed, _)| *handed != window);
        }
        self.unpark(account);
        self.grant()
    }

    /// Lets an account's requests wait in their lanes, as far as its share allows.
    fn unpark(&mut self, account: Option<Id>) {
        while let Some(id) = account
            && let Some(account) = self.accounts.get_mut(&id)
            && let Some(first) = account.parked.front()
            && (account.taken == 0 || account.taken + first.bytes <= self.share)
            && let Some(waiter) = account.parked.pop_front()
        {
            account.taken += waiter.bytes;
            self.enqueue(waiter);
        }
    }

    /// Forgets a waiter that went; others may be served now. `None` if it was granted meanwhile.
    pub(super) fn withdraw(
        &mut self,
        account: Option<Id>,
        id: Id,
    ) -> Option<Vec<oneshot::Sender<()>>> {
        if let Some(account) = account.and_then(|id| self.accounts.get_mut(&id))
            && let Some(place) = account.parked.iter().position(|waiter| waiter.id == id)
        {
            account.parked.remove(place);
            return Some(Vec::new());
        }
        let waiter = self.urgent.remove(id).or_else(|| self.bulk.remove(id))?;
        if let Some(account) = account.and_then(|id| self.accounts.get_mut(&id)) {
            account.taken -= waiter.bytes;
        }
        self.unpark(account);
        Some(self.grant())
    }

    /// Notes that a window is with its client.
    pub(super) fn handed(&mut self, account: Id, window: Id, now: Duration) {
        if let Some(account) = self.accounts.get_mut(&account) {
            account.handed.push((window, now));
        }
    }

    /// Notes a window that is read ahead and may be dropped.
    pub(super) fn ahead(&mut self, account: Id, slot: &Arc<dyn Ahead>) {
        if let Some(account) = self.accounts.get_mut(&account) {
            account.ahead.retain(|slot| slot.strong_count() > 0);
            account.ahead.push(Arc::downgrade(slot));
        }
    }

    #[cfg(test)]
    pub(super) fn has_no_accounts(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Whether anybody waits in a lane, or the reserve is low.
    pub(super) fn is_short(&self) -> bool {
        !self.urgent.waiters.is_empty()
            || !self.bulk.waiters.is_empty()
            || self.free < self.reserve / 2
    }

    /// Decides who gives way at `now`. Who waits for bulk reads is served in portions, so that not all give way at once.
    pub(super) fn relieve(&mut self, now: Duration) -> Relief {
        let mut relief = Relief::default();
        let bulk = match self.bulk.bytes {
            0 => self.reserve / 2,
            waiting => self.reserve + waiting.min(self.total / 8),
        };
        let coming: usize = self
            .accounts
            .values()
            .filter(|account| account.told)
            .map(|account| account.held)
            .sum();
        let wanted = self.urgent.bytes + bulk;
        let mut short = wanted.saturating_sub(self.free + coming);
        if short == 0 {
            return relief;
        }
        for slot in self.accounts.values().flat_map(|account| &account.ahead) {
            if short > 0
                && let Some(slot) = slot.upgrade()
            {
                short = short.saturating_sub(slot.bytes());
                relief.ahead.push(slot);
            }
        }
        let mut stalled: Vec<(Duration, Id)> = self
            .accounts
            .iter()
            .filter(|(_, account)| !account.told)
            .map(|(id, account)| (account.stalled(now), *id))
            .filter(|(stalled, _)| *stalled >= self.stall)
            .collect();
        stalled.sort_unstable();
        while short > 0
            && let Some((_, id)) = stalled.pop()
            && let Some(account) = self.accounts.get_mut(&id)
        {
            account.told = true;
            short = short.saturating_sub(account.held);
            relief.told.push(Arc::clone(&account.signals));
        }
        relief
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: usize = 1 << 10;
    const STALL: Duration = Duration::from_secs(1);

    /// 1 MiB: 256 KiB of it reserved, 64 KiB a share.
    fn budget() -> Budget {
        Budget::new(1024 * K, 64 * K, STALL)
    }

    fn client(budget: &mut Budget) -> (Id, Arc<Signals>) {
        let signals = Arc::new(Signals::default());
        (budget.open(Arc::clone(&signals)), signals)
    }

    fn is_granted(asked: Option<&mut (Id, oneshot::Receiver<()>)>) -> bool {
        asked.is_none_or(|(_, granted)| granted.try_recv().is_ok())
    }

    fn send_all(granted: Vec<oneshot::Sender<()>>) {
        for grant in granted {
            grant.send(()).unwrap();
        }
    }

    /// Guards: bulk reads leave the reserve to small answers, however many there are; one account cannot have all of the reserve.
    #[test]
    fn the_reserve_is_for_small_answers() {
        let mut budget = budget();
        for _ in 0..12 {
            let (id, _) = client(&mut budget);
            assert!(budget.ask(Lane::Bulk, Some(id), 64 * K).is_none());
        }
        let (id, _) = client(&mut budget);
        let mut bulk = budget.ask(Lane::Bulk, Some(id), 64 * K);
        assert!(!is_granted(bulk.as_mut()));
        assert!(budget.ask(Lane::Urgent, None, 16 * K).is_none());
        let (greedy, _) = client(&mut budget);
        budget.share = 1024 * K;
        for _ in 0..3 {
            assert!(budget.ask(Lane::Urgent, Some(greedy), 64 * K).is_none());
        }
        let (other, _) = client(&mut budget);
        let mut fifth = budget.ask(Lane::Urgent, Some(greedy), 128 * K);
        assert!(
            !is_granted(fifth.as_mut()),
            "more than its part of the reserve"
        );
        assert!(budget.ask(Lane::Urgent, Some(other), 16 * K).is_none());
        send_all(budget.release(None, 0, 64 * K));
    }

    /// Guards: an account waits for its own bytes beyond its share and holds nobody up; who goes leaves its place to the next.
    #[test]
    fn who_waits_is_served_in_turn() {
        let mut budget = budget();
        let ((one, _), (two, _)) = (client(&mut budget), client(&mut budget));
        assert!(budget.ask(Lane::Bulk, Some(one), 64 * K).is_none());
        let mut parked = budget.ask(Lane::Bulk, Some(one), 64 * K);
        assert!(!is_granted(parked.as_mut()));
        assert!(budget.ask(Lane::Bulk, Some(two), 64 * K).is_none());
        send_all(budget.release(Some(one), 0, 64 * K));
        assert!(is_granted(parked.as_mut()));
        assert!(budget.ask(Lane::Bulk, None, 640 * K).is_none());
        let mut first = budget.ask(Lane::Bulk, None, 64 * K);
        let mut second = budget.ask(Lane::Bulk, None, 4 * K);
        assert!(!is_granted(first.as_mut()) && !is_granted(second.as_mut()));
        let first = first.as_ref().unwrap().0;
        send_all(budget.withdraw(None, first).expect("it waited"));
        assert!(!is_granted(second.as_mut()), "the reserve was used");
        send_all(budget.release(Some(two), 0, 64 * K));
        assert!(is_granted(second.as_mut()));
        assert!(budget.withdraw(None, second.as_ref().unwrap().0).is_none());
    }

    /// Guards: the client that took nothing for the longest time lets go first, only while others wait, and one that takes its bytes
    /// does not; one that takes a byte now and then does in the end.
    #[test]
    fn the_longest_stalled_gives_way() {
        let mut budget = budget();
        let mut clients = Vec::new();
        for number in 0..12 {
            let (id, signals) = client(&mut budget);
            assert!(budget.ask(Lane::Bulk, Some(id), 64 * K).is_none());
            budget.handed(id, 1000 + number, Duration::from_millis(10 * number));
            clients.push((id, signals));
        }
        let told = |relief: &Relief| relief.told.len();
        let late = STALL * 2;
        assert_eq!(told(&budget.relieve(late)), 0, "nobody waits");
        let mut waiting = budget.ask(Lane::Bulk, None, 64 * K);
        assert_eq!(told(&budget.relieve(STALL / 2)), 0, "none is stalled yet");
        clients[0].1.progressed(late);
        let relief = budget.relieve(late);
        assert_eq!(told(&relief), 1);
        assert!(Arc::ptr_eq(&clients[1].1, &relief.told[0]));
        assert_eq!(told(&budget.relieve(late)), 0, "its bytes are on their way");
        send_all(budget.release(Some(clients[1].0), 1001, 64 * K));
        assert!(is_granted(waiting.as_mut()));
        for (_, signals) in &clients {
            signals.progressed(STALL * 9);
        }
        let _more = budget.ask(Lane::Bulk, None, 64 * K);
        assert_eq!(told(&budget.relieve(STALL * 9)), 0, "all take bytes");
        for (_, signals) in &clients {
            signals.progressed(STALL * 10);
        }
        assert_eq!(
            told(&budget.relieve(STALL * 10)),
            1,
            "one window in ten stalls"
        );
    }
}
