//! Who gets memory, and who has to give it up.
//!
//! Owns: the arithmetic, pure: what is granted, in which order, and which clients are told to let go.
//! Refuses: waiting and clocks (`shared`), and blocks of memory (`pool`).
//!
//! Invariants: never more than the total is out; bulk reads leave the reserve alone; within a lane who asked first is served first; one
//! account takes no more than its share, and what it has of the reserve is counted apart, so that its large answers do not hold its
//! small ones up; a client is told to let go only while others wait, for memory or for an open file, or the reserve is low, and only
//! after it took nothing for `stall`, the longest first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::account::Signals;
use super::ahead::Ahead;
use crate::sync::oneshot;

/// What one account may have of the reserve: small answers fit, a connection full of unread ones does not.
const URGENT_SHARE_BYTES: usize = 256 << 10;
/// Time between two looks at all accounts, however many wait.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
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
    /// When all accounts were last looked at, for memory and for a file.
    looked: Option<Duration>,
    looked_for_file: Option<Duration>,
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
    /// Granted, and waiting in a lane; each lane apart.
    urgent: usize,
    bulk: usize,
    /// Waits for its own bytes to come back before it waits in a lane.
    parked: VecDeque<Waiter>,
    /// Windows that were handed over.
    handed: Vec<Handed>,
    ahead: Vec<Weak<dyn Ahead>>,
    /// When it was told to let go.
    told: Option<Duration>,
}

/// A window that is with its client.
#[derive(Debug)]
struct Handed {
    window: Id,
    at: Duration,
    /// Whether it was read from a file, which is open until the answer ends. On HTTP/1.1 the last window may outlive that.
    has_file: bool,
}

/// What asking came to.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: Id,
    /// Where the bytes are counted.
    pub(super) lane: Lane,
    /// Resolves once they are granted; `None` if they are already.
    pub(super) granted: Option<oneshot::Receiver<()>>,
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
    /// What it has of a lane.
    fn taken(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Bulk => &mut self.bulk,
        }
    }

    /// Whether it was told to let go, so short a time ago that it may still do so.
    fn is_told(&self, now: Duration, stall: Duration) -> bool {
        self.told.is_some_and(|at| now < at.saturating_add(stall))
    }

    /// How long its client has taken nothing; for one that takes a little, a fraction of the time it has its oldest window.
    fn stalled(&self, now: Duration) -> Duration {
        let Some(oldest) = self.handed.iter().map(|handed| handed.at).min() else {
            return Duration::ZERO;
        };
        let idle = now.saturating_sub(oldest.max(self.signals.progress()));
        idle.max(now.saturating_sub(oldest) / SLOW_FACTOR)
    }

    /// Whether an answer that its client has to take keeps a file open.
    fn has_file(&self) -> bool {
        self.handed.iter().any(|handed| handed.has_file)
    }
}

impl Budget {
    pub(super) fn new(total: usize, share: usize, stall: Duration) -> Self {
        Self {
            total,
            reserve: total / 4,
            share,
            stall,
            free: total,
            urgent: Queue::default(),
            bulk: Queue::default(),
            accounts: HashMap::new(),
            looked: None,
            looked_for_file: None,
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
            urgent: 0,
            bulk: 0,
            parked: VecDeque::new(),
            handed: Vec::new(),
            ahead: Vec::new(),
            told: None,
        };
        self.accounts.insert(id, account);
        id
    }

    /// Ends an account, which holds nothing any more.
    pub(super) fn close(&mut self, account: Id) {
        self.accounts.remove(&account);
    }

    /// Asks for `bytes`.
    pub(super) fn ask(&mut self, lane: Lane, account: Option<Id>, bytes: usize) -> Asked {
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
            if account.urgent + bytes > URGENT_SHARE_BYTES {
                waiter.lane = Lane::Bulk;
            }
            let lane = waiter.lane;
            let beyond = account.bulk > 0 && account.bulk + bytes > self.share;
            if lane == Lane::Bulk && (beyond || !account.parked.is_empty()) {
                account.parked.push_back(waiter);
                let granted = Some(granted);
                return Asked { id, lane, granted };
            }
            *account.taken(lane) += bytes;
        }
        let lane = waiter.lane;
        self.enqueue(waiter);
        // Nobody else can be granted anything by what was just added, so this is ours or none.
        let granted = match self.grant().pop() {
            Some(_ours) => None,
            None => Some(granted),
        };
        Asked { id, lane, granted }
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

    /// Takes back `bytes` that were granted in `lane`, and serves who waited for them.
    #[must_use]
    pub(super) fn release(
        &mut self,
        account: Option<Id>,
        lane: Lane,
        bytes: usize,
    ) -> Vec<oneshot::Sender<()>> {
        self.free += bytes;
        if let Some(id) = account
            && let Some(account) = self.accounts.get_mut(&id)
        {
            account.held -= bytes;
            *account.taken(lane) -= bytes;
            if !account.signals.is_revoked() {
                account.told = None;
            }
        }
        self.unpark(account);
        self.grant()
    }

    /// Lets an account's requests wait in their lanes, as far as its share allows.
    fn unpark(&mut self, account: Option<Id>) {
        while let Some(id) = account
            && let Some(account) = self.accounts.get_mut(&id)
            && let Some(first) = account.parked.front()
            && (account.bulk == 0 || account.bulk + first.bytes <= self.share)
            && let Some(waiter) = account.parked.pop_front()
        {
            account.bulk += waiter.bytes;
            self.enqueue(waiter);
        }
    }

    /// Forgets a waiter that went; others may be served now. `None` if it was granted meanwhile.
    pub(super) fn withdraw(
        &mut self,
        account: Option<Id>,
        id: Id,
    ) -> Option<Vec<oneshot::Sender<()>>> {
        let asking = account.and_then(|id| self.accounts.get_mut(&id));
        if let Some(asking) = asking
            && let Some(place) = asking.parked.iter().position(|waiter| waiter.id == id)
        {
            asking.parked.remove(place);
        } else {
            let waiter = self.urgent.remove(id).or_else(|| self.bulk.remove(id))?;
            if let Some(account) = account.and_then(|id| self.accounts.get_mut(&id)) {
                *account.taken(waiter.lane) -= waiter.bytes;
            }
        }
        self.unpark(account);
        Some(self.grant())
    }

    /// Notes that a window is with its client, and whether it `has_file` open.
    pub(super) fn handed(&mut self, account: Id, window: Id, at: Duration, has_file: bool) {
        if let Some(account) = self.accounts.get_mut(&account) {
            account.handed.push(Handed {
                window,
                at,
                has_file,
            });
        }
    }

    /// Notes that nothing is waited for from the client for a window.
    pub(super) fn settled(&mut self, account: Id, window: Id) {
        if let Some(account) = self.accounts.get_mut(&account) {
            account.handed.retain(|handed| handed.window != window);
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

    /// How many wait in a lane.
    pub(super) fn waiting(&self) -> usize {
        self.urgent.waiters.len() + self.bulk.waiters.len()
    }

    /// Whether anybody waits in a lane, or the reserve is low.
    fn is_short(&self) -> bool {
        self.waiting() > 0 || self.free < self.reserve / 2
    }

    /// Decides who gives way at `now`, for `asking` and for all others who wait. An account that waits for its own bytes drops what was
    /// read ahead for it. Who waits for bulk reads is served in portions, so that not all give way at once.
    pub(super) fn relieve(&mut self, now: Duration, asking: Option<Id>) -> Relief {
        let mut relief = Relief::default();
        if let Some(asking) = asking.and_then(|id| self.accounts.get(&id))
            && !asking.parked.is_empty()
        {
            relief
                .ahead
                .extend(asking.ahead.iter().filter_map(Weak::upgrade));
        }
        if !self.is_short() || is_lately(self.looked, now) {
            return relief;
        }
        self.looked = Some(now);
        let bulk = match self.bulk.waiters.front() {
            None => self.reserve / 2,
            Some(first) => {
                let portion = self.bulk.bytes.min(self.total / 8);
                self.reserve + portion.max(first.bytes)
            }
        };
        let coming: usize = self
            .accounts
            .values()
            .filter(|account| account.is_told(now, self.stall))
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
        let mut stalled = self.stalled(now, |_| true);
        while short > 0
            && let Some((_, id)) = stalled.pop()
            && let Some(account) = self.accounts.get_mut(&id)
        {
            account.told = Some(now);
            short = short.saturating_sub(account.held);
            relief.told.push(Arc::clone(&account.signals));
        }
        relief
    }

    /// Of the clients with an open file, the one that took nothing for the longest time, to be told to let go, if that is long enough.
    /// One at a time: `None` while one that was told may still do so.
    pub(super) fn longest_stalled_with_file(&mut self, now: Duration) -> Option<Arc<Signals>> {
        if is_lately(self.looked_for_file, now) {
            return None;
        }
        self.looked_for_file = Some(now);
        let is_coming = |account: &Account| account.has_file() && account.is_told(now, self.stall);
        if self.accounts.values().any(is_coming) {
            return None;
        }
        let counts = |account: &Account| account.has_file() && !account.signals.is_revoked();
        let (_, id) = self.stalled(now, counts).pop()?;
        let account = self.accounts.get_mut(&id)?;
        account.told = Some(now);
        Some(Arc::clone(&account.signals))
    }

    /// Of the accounts that count, those whose clients took nothing for long enough and were not told lately, the longest last.
    fn stalled(&self, now: Duration, counts: impl Fn(&Account) -> bool) -> Vec<(Duration, Id)> {
        let accounts = self.accounts.iter();
        let mut stalled: Vec<_> = accounts
            .filter(|(_, account)| counts(account) && !account.is_told(now, self.stall))
            .map(|(id, account)| (account.stalled(now), *id))
            .filter(|(stalled, _)| *stalled >= self.stall)
            .collect();
        stalled.sort_unstable();
        stalled
    }
}

/// Whether a look was so short a time ago that there is no other yet.
fn is_lately(looked: Option<Duration>, now: Duration) -> bool {
    looked.is_some_and(|at| now < at.saturating_add(LOOK_PAUSE))
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

    fn is_granted(asked: &mut Asked) -> bool {
        let granted = asked.granted.as_mut();
        granted.is_none_or(|granted| granted.try_recv().is_ok())
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
            assert!(budget.ask(Lane::Bulk, Some(id), 64 * K).granted.is_none());
        }
        let (id, _) = client(&mut budget);
        let mut bulk = budget.ask(Lane::Bulk, Some(id), 64 * K);
        assert!(!is_granted(&mut bulk));
        assert!(budget.ask(Lane::Urgent, None, 16 * K).granted.is_none());
        let (greedy, _) = client(&mut budget);
        budget.share = 1024 * K;
        for _ in 0..3 {
            assert!(
                budget
                    .ask(Lane::Urgent, Some(greedy), 64 * K)
                    .granted
                    .is_none()
            );
        }
        let (other, _) = client(&mut budget);
        let mut fifth = budget.ask(Lane::Urgent, Some(greedy), 128 * K);
        assert!(!is_granted(&mut fifth), "more than its part of the reserve");
        assert!(
            budget
                .ask(Lane::Urgent, Some(other), 16 * K)
                .granted
                .is_none()
        );
        send_all(budget.release(None, Lane::Urgent, 64 * K));
    }

    /// Guards: an account waits for its own bytes beyond its share and holds nobody up; who goes leaves its place to the next.
    #[test]
    fn who_waits_is_served_in_turn() {
        let mut budget = budget();
        let ((one, _), (two, _)) = (client(&mut budget), client(&mut budget));
        assert!(budget.ask(Lane::Bulk, Some(one), 64 * K).granted.is_none());
        let mut parked = budget.ask(Lane::Bulk, Some(one), 64 * K);
        assert!(!is_granted(&mut parked));
        assert!(budget.ask(Lane::Bulk, Some(two), 64 * K).granted.is_none());
        send_all(budget.release(Some(one), Lane::Bulk, 64 * K));
        assert!(is_granted(&mut parked));
        assert!(budget.ask(Lane::Bulk, None, 640 * K).granted.is_none());
        let mut first = budget.ask(Lane::Bulk, None, 64 * K);
        let mut second = budget.ask(Lane::Bulk, None, 4 * K);
        assert!(!is_granted(&mut first) && !is_granted(&mut second));
        send_all(budget.withdraw(None, first.id).expect("it waited"));
        assert!(!is_granted(&mut second), "the reserve was used");
        send_all(budget.release(Some(two), Lane::Bulk, 64 * K));
        assert!(is_granted(&mut second));
        assert!(budget.withdraw(None, second.id).is_none());
    }

    /// A window that is read ahead, until it is given up.
    #[derive(Debug)]
    struct Slot;

    impl Ahead for Slot {
        fn bytes(&self) -> usize {
            64 * K
        }
        fn give_up(&self) {}
    }

    /// Guards: an account whose large answers have all of its share still gets small ones; what it waits for itself takes what was read
    /// ahead for it, though nobody else waits; and a wait that is given up lets the next one of the same account go on.
    #[test]
    fn a_share_does_not_hold_small_answers_up() {
        let mut budget = budget();
        let (id, _) = client(&mut budget);
        let ahead: Arc<dyn Ahead> = Arc::new(Slot);
        assert!(budget.ask(Lane::Bulk, Some(id), 32 * K).granted.is_none());
        budget.ahead(id, &ahead);
        assert!(budget.relieve(STALL, Some(id)).ahead.is_empty());
        let large = budget.ask(Lane::Bulk, Some(id), 64 * K);
        let mut small = budget.ask(Lane::Bulk, Some(id), 16 * K);
        assert!(large.granted.is_some() && !is_granted(&mut small));
        for _ in 0..4 {
            let urgent = budget.ask(Lane::Urgent, Some(id), 64 * K);
            assert!(urgent.granted.is_none() && urgent.lane == Lane::Urgent);
        }
        assert_eq!(budget.relieve(STALL, Some(id)).ahead.len(), 1);
        send_all(budget.withdraw(Some(id), large.id).expect("it waited"));
        assert!(is_granted(&mut small));
        let fifth = budget.ask(Lane::Urgent, Some(id), 64 * K);
        assert_eq!(fifth.lane, Lane::Bulk, "its part of the reserve is used");
        send_all(budget.release(Some(id), Lane::Urgent, 64 * K));
        let sixth = budget.ask(Lane::Urgent, Some(id), 64 * K);
        assert_eq!(sixth.lane, Lane::Urgent);
    }

    /// Guards: a client that gives one window up is told again only once that one is back, or did not come back for long.
    #[test]
    fn who_gave_way_is_told_again() {
        let mut budget = budget();
        let (id, signals) = client(&mut budget);
        budget.share = 1024 * K;
        for window in 1000..1003 {
            assert!(budget.ask(Lane::Bulk, Some(id), 256 * K).granted.is_none());
            budget.handed(id, window, Duration::ZERO, false);
        }
        let _waiting = budget.ask(Lane::Bulk, None, 512 * K);
        let mut now = STALL;
        assert_eq!(budget.relieve(now, None).told.len(), 1);
        signals.unrevoke();
        now += LOOK_PAUSE;
        assert!(
            budget.relieve(now, None).told.is_empty(),
            "it is on its way"
        );
        budget.settled(id, 1000);
        send_all(budget.release(Some(id), Lane::Bulk, 256 * K));
        now += LOOK_PAUSE;
        assert_eq!(budget.relieve(now, None).told.len(), 1, "it was not enough");
        now += STALL;
        assert_eq!(budget.relieve(now, None).told.len(), 1, "nothing came");
    }

    /// Guards: however many wait, all accounts are looked at only so often.
    #[test]
    fn accounts_are_looked_at_now_and_then() {
        let mut budget = budget();
        let (holder, signals) = client(&mut budget);
        assert!(
            budget
                .ask(Lane::Bulk, Some(holder), 768 * K)
                .granted
                .is_none()
        );
        budget.handed(holder, 1000, Duration::ZERO, false);
        let _waiting = budget.ask(Lane::Bulk, None, 64 * K);
        signals.progressed(STALL);
        assert!(budget.relieve(STALL, None).told.is_empty());
        // As if it had been stalled before.
        signals.progressed(Duration::ZERO);
        let soon = STALL + LOOK_PAUSE / 2;
        assert!(budget.relieve(soon, None).told.is_empty(), "looked again");
        assert_eq!(budget.relieve(STALL + LOOK_PAUSE, None).told.len(), 1);
    }

    /// Guards: for a file one client is told to let go at a time, the next once that one has or did not for long; only one with an open
    /// file; and all accounts are looked at only so often.
    #[test]
    fn one_client_at_a_time_gives_a_file_up() {
        let mut budget = budget();
        let mut clients = Vec::new();
        for number in 0..4 {
            let (id, signals) = client(&mut budget);
            let at = Duration::from_millis(number);
            budget.handed(id, 1000 + number, at, number > 0);
            clients.push((id, signals));
        }
        let told = |budget: &mut Budget, now| {
            let told = budget.longest_stalled_with_file(now)?;
            told.revoke();
            clients.iter().position(|(_, one)| Arc::ptr_eq(one, &told))
        };
        let mut now = STALL / 2;
        assert_eq!(told(&mut budget, now), None, "none is stalled yet");
        now = STALL * 2;
        assert_eq!(told(&mut budget, now), Some(1));
        now += LOOK_PAUSE;
        assert_eq!(told(&mut budget, now), None, "a file is on its way");
        budget.close(clients[1].0);
        assert_eq!(told(&mut budget, now), None, "looked again");
        now += LOOK_PAUSE;
        assert_eq!(told(&mut budget, now), Some(2), "it was not enough");
        now += STALL;
        assert_eq!(told(&mut budget, now), Some(3), "nothing came");
    }

    /// Guards: one that asks for more than a portion gets as many to give way as it needs.
    #[test]
    fn a_large_wait_ends() {
        let mut budget = budget();
        for number in 0..12 {
            let (id, _) = client(&mut budget);
            assert!(budget.ask(Lane::Urgent, Some(id), 64 * K).granted.is_none());
            budget.handed(id, 1000 + number, Duration::ZERO, false);
        }
        let _waiting = budget.ask(Lane::Bulk, None, 512 * K);
        assert_eq!(budget.relieve(STALL, None).told.len(), 8);
    }

    /// Guards: the client that took nothing for the longest time lets go first, only while others wait, and one that takes its bytes
    /// does not; one that takes a byte now and then does in the end.
    #[test]
    fn the_longest_stalled_gives_way() {
        let mut budget = budget();
        let mut clients = Vec::new();
        for number in 0..12 {
            let (id, signals) = client(&mut budget);
            assert!(budget.ask(Lane::Bulk, Some(id), 64 * K).granted.is_none());
            budget.handed(id, 1000 + number, Duration::from_millis(10 * number), false);
            clients.push((id, signals));
        }
        let told = |relief: &Relief| relief.told.len();
        let late = STALL * 2;
        assert_eq!(told(&budget.relieve(late, None)), 0, "nobody waits");
        let mut waiting = budget.ask(Lane::Bulk, None, 64 * K);
        assert_eq!(
            told(&budget.relieve(STALL / 2, None)),
            0,
            "none is stalled yet"
        );
        clients[0].1.progressed(late);
        let relief = budget.relieve(late, None);
        assert_eq!(told(&relief), 1);
        assert!(Arc::ptr_eq(&clients[1].1, &relief.told[0]));
        let later = late + LOOK_PAUSE;
        assert_eq!(
            told(&budget.relieve(later, None)),
            0,
            "its bytes are on their way"
        );
        budget.settled(clients[1].0, 1001);
        send_all(budget.release(Some(clients[1].0), Lane::Bulk, 64 * K));
        assert!(is_granted(&mut waiting));
        for (_, signals) in &clients {
            signals.progressed(STALL * 9);
        }
        let _more = budget.ask(Lane::Bulk, None, 64 * K);
        assert_eq!(told(&budget.relieve(STALL * 9, None)), 0, "all take bytes");
        for (_, signals) in &clients {
            signals.progressed(STALL * 10);
        }
        assert_eq!(
            told(&budget.relieve(STALL * 10, None)),
            1,
            "one window in ten stalls"
        );
    }
}
