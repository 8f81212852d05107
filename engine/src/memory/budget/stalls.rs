//! Selection of the clients that lose memory or a file: those that took nothing for the longest time.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Budget, Id, MemoryPriority, Waiter};
use crate::memory::account::Signals;
use crate::memory::read_ahead::ReadAhead;

/// Time between two scans of all accounts, however many wait.
pub(super) const SCAN_PAUSE: Duration = Duration::from_millis(10);
/// A client that takes a few bytes now and then counts as stalled if it takes less than one window in this many times
/// `stall`.
const SLOW_FACTOR: u32 = 10;

/// The state of one account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) signals: Arc<Signals>,
    /// Bytes granted to it.
    pub(super) held: usize,
    /// Bytes granted, or waiting in a queue, for each priority.
    pub(super) urgent: usize,
    pub(super) bulk: usize,
    /// Requests that wait for the account's own bytes before they wait in a queue.
    pub(super) parked: VecDeque<Waiter>,
    /// Windows that the client has.
    pub(super) delivered: Vec<DeliveredWindow>,
    pub(super) ahead: Vec<Weak<dyn ReadAhead>>,
    /// When it was revoked.
    pub(super) revoked_at: Option<Duration>,
    /// When it was last revoked, as long as others are served before it.
    pub(super) slow_since: Option<Duration>,
}

/// A window that the client has.
#[derive(Debug)]
pub(super) struct DeliveredWindow {
    window: Id,
    at: Duration,
    /// Whether it was read from a file, which stays open until the answer ends. On HTTP/1.1 the last window may outlive
    /// that.
    has_file: bool,
}

impl Account {
    /// Returns its bytes of a priority.
    pub(super) fn taken(&mut self, priority: MemoryPriority) -> &mut usize {
        match priority {
            MemoryPriority::Urgent => &mut self.urgent,
            MemoryPriority::Bulk => &mut self.bulk,
        }
    }

    /// Returns whether `bytes` more of bulk memory have to wait until the account returned some.
    pub(super) fn is_beyond(&self, share: usize, bytes: usize) -> bool {
        !self.parked.is_empty() || self.bulk > 0 && self.bulk + bytes > share
    }

    /// Returns whether it was revoked so recently that it may still react.
    fn is_being_revoked(&self, now: Duration, stall: Duration) -> bool {
        self.revoked_at
            .is_some_and(|at| now < at.saturating_add(stall))
    }

    /// Returns how long the client took nothing. For one that takes a little, that is a fraction of the time it has had
    /// its oldest window.
    fn stalled(&self, now: Duration) -> Duration {
        let Some(oldest) = self.delivered.iter().map(|delivered| delivered.at).min() else {
            return Duration::ZERO;
        };
        let idle = now.saturating_sub(oldest.max(self.signals.progress()));
        idle.max(now.saturating_sub(oldest) / SLOW_FACTOR)
    }

    /// Returns whether an answer that waits for the client keeps a file open.
    fn has_file(&self) -> bool {
        self.delivered.iter().any(|delivered| delivered.has_file)
    }
}

/// What is to be done without the budget's lock.
#[derive(Debug, Default)]
pub(in crate::memory) struct Relief {
    /// Windows read ahead, to drop.
    pub(in crate::memory) ahead: Vec<Arc<dyn ReadAhead>>,
    /// Accounts to revoke.
    pub(in crate::memory) revoked: Vec<Arc<Signals>>,
}

impl Budget {
    /// Notes that the client has a window, and whether a file is open for it.
    pub(in crate::memory) fn delivered(
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
            account.delivered.push(DeliveredWindow {
                window,
                at,
                has_file,
            });
        }
    }

    /// Notes that a window no longer waits for the client.
    pub(in crate::memory) fn settled(&mut self, account: Id, window: Id) {
        if let Some(account) = self.accounts.get_mut(&account) {
            account
                .delivered
                .retain(|delivered| delivered.window != window);
        }
    }

    /// Notes a window that is read ahead and may be dropped.
    pub(in crate::memory) fn ahead(&mut self, account: Id, slot: &Arc<dyn ReadAhead>) {
        if let Some(account) = self.accounts.get_mut(&account) {
            account.ahead.retain(|slot| slot.strong_count() > 0);
            account.ahead.push(Arc::downgrade(slot));
        }
    }

    /// Returns whether anything waits in a queue, or the reserve is low.
    fn is_short(&self) -> bool {
        self.waiting() > 0 || self.free < self.reserve / 2
    }

    /// Decides what is freed at `now`, for `asking` and for all others that wait.
    ///
    /// An account that waits for its own bytes drops that much read-ahead, the newest first. Bulk waiters are served
    /// in portions, so that not all clients are revoked at once.
    pub(in crate::memory) fn relieve(&mut self, now: Duration, asking: Option<Id>) -> Relief {
        let mut relief = Relief::default();
        if let Some(asking) = asking.and_then(|id| self.accounts.get(&id))
            && !asking.parked.is_empty()
        {
            let parked: usize = asking.parked.iter().map(|waiter| waiter.bytes).sum();
            let mut beyond = (asking.bulk + parked).saturating_sub(self.share);
            for slot in asking.ahead.iter().rev().filter_map(Weak::upgrade) {
                if beyond == 0 {
                    break;
                }
                beyond = beyond.saturating_sub(slot.bytes());
                relief.ahead.push(slot);
            }
        }
        if !self.is_short() || is_lately(self.scanned, now) {
            return relief;
        }
        self.scanned = Some(now);
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
            .filter(|account| account.is_being_revoked(now, self.stall))
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
            relief.revoked.extend(self.revoke(id, now));
        }
        relief
    }

    /// Marks an account as revoked and returns its signals. Others that wait are served before it for a while.
    pub(super) fn revoke(&mut self, id: Id, now: Duration) -> Option<Arc<Signals>> {
        self.urgent.set_slow(id);
        self.bulk.set_slow(id);
        let account = self.accounts.get_mut(&id)?;
        (account.revoked_at, account.slow_since) = (Some(now), Some(now));
        Some(Arc::clone(&account.signals))
    }

    /// Revokes the client with an open file that took nothing for the longest time, if that is long enough. One at a
    /// time: returns `None` while a revoked one may still react.
    pub(in crate::memory) fn longest_stalled_with_file(
        &mut self,
        now: Duration,
    ) -> Option<Arc<Signals>> {
        if is_lately(self.scanned_for_file, now) {
            return None;
        }
        self.scanned_for_file = Some(now);
        let is_coming =
            |account: &Account| account.has_file() && account.is_being_revoked(now, self.stall);
        if self.accounts.values().any(is_coming) {
            return None;
        }
        let counts = |account: &Account| account.has_file() && !account.signals.is_revoked();
        let (_, id) = self.stalled(now, counts).pop()?;
        self.revoke(id, now)
    }

    /// Lists the accounts selected by `counts` whose clients took nothing for `stall` and were not revoked recently;
    /// the longest last.
    fn stalled(&self, now: Duration, counts: impl Fn(&Account) -> bool) -> Vec<(Duration, Id)> {
        let accounts = self.accounts.iter();
        let mut stalled: Vec<_> = accounts
            .filter(|(_, account)| counts(account) && !account.is_being_revoked(now, self.stall))
            .map(|(id, account)| (account.stalled(now), *id))
            .filter(|(stalled, _)| *stalled >= self.stall)
            .collect();
        stalled.sort_unstable();
        stalled
    }
}

/// Returns whether a scan was too recent for another one.
fn is_lately(scanned: Option<Duration>, now: Duration) -> bool {
    scanned.is_some_and(|at| now < at.saturating_add(SCAN_PAUSE))
}
