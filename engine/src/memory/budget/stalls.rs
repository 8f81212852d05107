//! Which clients have to give memory or a file up: those that took nothing for the longest time.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Budget, Id, Lane, Waiter};
use crate::memory::account::Signals;
use crate::memory::ahead::Ahead;

/// Time between two looks at all accounts, however many wait.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// A client that takes some bytes now and then, but one window in this many times `stall`, counts as stalled.
const SLOW_FACTOR: u32 = 10;

/// What one client has.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) signals: Arc<Signals>,
    /// Granted to it.
    pub(super) held: usize,
    /// Granted, and waiting in a lane; each lane apart.
    pub(super) urgent: usize,
    pub(super) bulk: usize,
    /// Waits for its own bytes to come back before it waits in a lane.
    pub(super) parked: VecDeque<Waiter>,
    /// Windows that were handed over.
    pub(super) handed: Vec<Handed>,
    pub(super) ahead: Vec<Weak<dyn Ahead>>,
    /// When it was told to let go.
    pub(super) told: Option<Duration>,
    /// The last time, as long as others are served before it.
    pub(super) slow_since: Option<Duration>,
}

/// A window that is with its client.
#[derive(Debug)]
pub(super) struct Handed {
    window: Id,
    at: Duration,
    /// Whether it was read from a file, which is open until the answer ends. On HTTP/1.1 the last window may outlive that.
    has_file: bool,
}

impl Account {
    /// What it has of a lane.
    pub(super) fn taken(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Bulk => &mut self.bulk,
        }
    }

    /// Whether `bytes` more of bulk memory have to wait until it gave some back.
    pub(super) fn is_beyond(&self, share: usize, bytes: usize) -> bool {
        !self.parked.is_empty() || self.bulk > 0 && self.bulk + bytes > share
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

/// What may have to be done, without the budget's lock.
#[derive(Debug, Default)]
pub(in crate::memory) struct Relief {
    /// Windows read ahead, to drop.
    pub(in crate::memory) ahead: Vec<Arc<dyn Ahead>>,
    /// Accounts to be told.
    pub(in crate::memory) told: Vec<Arc<Signals>>,
}

impl Budget {
    /// Notes that a window is with its client, and whether it `has_file` open.
    pub(in crate::memory) fn handed(
        &mut self,
        account: Id,
        window: Id,
        at: Duration,
        has_file: bool,
    ) {
        if let Some(account) = self.accounts.get_mut(&account) {
            let while_slow = self.stall * SLOW_FACTOR;
            account
                .slow_since
                .take_if(|since| at.saturating_sub(*since) >= while_slow);
            account.handed.push(Handed {
                window,
                at,
                has_file,
            });
        }
    }

    /// Notes that nothing is waited for from the client for a window.
    pub(in crate::memory) fn settled(&mut self, account: Id, window: Id) {
        if let Some(account) = self.accounts.get_mut(&account) {
            account.handed.retain(|handed| handed.window != window);
        }
    }

    /// Notes a window that is read ahead and may be dropped.
    pub(in crate::memory) fn ahead(&mut self, account: Id, slot: &Arc<dyn Ahead>) {
        if let Some(account) = self.accounts.get_mut(&account) {
            account.ahead.retain(|slot| slot.strong_count() > 0);
            account.ahead.push(Arc::downgrade(slot));
        }
    }

    /// Whether anybody waits in a lane, or the reserve is low.
    fn is_short(&self) -> bool {
        self.waiting() > 0 || self.free < self.reserve / 2
    }

    /// Decides who gives way at `now`, for `asking` and for all others who wait. An account that waits for its own bytes drops what was
    /// read ahead for it. Who waits for bulk reads is served in portions, so that not all give way at once.
    pub(in crate::memory) fn relieve(&mut self, now: Duration, asking: Option<Id>) -> Relief {
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
        let bulk = match self.bulk.first_bytes() {
            None => self.reserve / 2,
            Some(first) => {
                let portion = self.bulk.bytes().min(self.total / 8);
                self.reserve + portion.max(first)
            }
        };
        let coming: usize = self
            .accounts
            .values()
            .filter(|account| account.is_told(now, self.stall))
            .map(|account| account.held)
            .sum();
        let wanted = self.urgent.bytes() + bulk;
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
        {
            short = short.saturating_sub(self.accounts.get(&id).map_or(0, |account| account.held));
            relief.told.extend(self.tell(id, now));
        }
        relief
    }

    /// Notes that an account is told to let go, and gives where. Others who wait are served before it for a while.
    pub(super) fn tell(&mut self, id: Id, now: Duration) -> Option<Arc<Signals>> {
        self.urgent.set_slow(id);
        self.bulk.set_slow(id);
        let account = self.accounts.get_mut(&id)?;
        (account.told, account.slow_since) = (Some(now), Some(now));
        Some(Arc::clone(&account.signals))
    }

    /// Of the clients with an open file, the one that took nothing for the longest time, to be told to let go, if that is long enough.
    /// One at a time: `None` while one that was told may still do so.
    pub(in crate::memory) fn longest_stalled_with_file(
        &mut self,
        now: Duration,
    ) -> Option<Arc<Signals>> {
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
        self.tell(id, now)
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
