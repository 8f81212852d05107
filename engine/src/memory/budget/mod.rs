//! The policy of the memory budget. Pure arithmetic.
//!
//! Owns: what is granted, in which order, and which clients are revoked. Refuses: waiting and clocks (`shared`), and
//! blocks of memory (`pool`).
//!
//! Invariants: never more than the total is granted, and bulk reads leave the reserve alone. Within a priority,
//! accounts are served in turn. One account takes no more than its share. Its part of the reserve counts separately, so
//! its large answers do not delay its small ones. A client is revoked only while others wait, for memory or for an open
//! file, or while the reserve is low, and only if it took nothing for `stall`; the longest first.

mod queue;
mod stalls;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::account::Signals;
use crate::sync::oneshot;
use queue::Queue;
use stalls::Account;

/// Most bytes of the reserve for one account: small answers fit, a connection full of unread ones does not.
const URGENT_SHARE_BYTES: usize = 256 << 10;

/// The part of the budget that a read may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryPriority {
    /// All of it, the reserve too: manifests and small answers.
    Urgent,
    /// All but the reserve.
    Bulk,
}

/// Number of an account or a waiter.
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
    /// When all accounts were last scanned, for memory and for a file.
    scanned: Option<Duration>,
    scanned_for_file: Option<Duration>,
    next: Id,
}

#[derive(Debug)]
struct Waiter {
    id: Id,
    priority: MemoryPriority,
    account: Option<Id>,
    bytes: usize,
    grant: oneshot::Sender<()>,
}

/// The result of a request for memory.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: Id,
    /// The priority under which the bytes are counted.
    pub(super) priority: MemoryPriority,
    /// Resolves once the bytes are granted; `None` if they already are.
    pub(super) granted: Option<oneshot::Receiver<()>>,
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
            scanned: None,
            scanned_for_file: None,
            next: 0,
        }
    }

    /// Returns all but the reserve.
    pub(super) fn bulk(&self) -> usize {
        self.total - self.reserve
    }

    pub(super) fn free(&self) -> usize {
        self.free
    }

    pub(super) fn stall(&self) -> Duration {
        self.stall
    }

    /// Returns the bytes that bulk reads may take at once: none while others wait for them.
    pub(super) fn spare(&self) -> usize {
        if self.bulk.len() == 0 {
            self.free.saturating_sub(self.reserve)
        } else {
            0
        }
    }

    /// Returns whether bulk memory for read-ahead may be requested: it would be granted at once, and half of the budget
    /// is left. A request beyond the share of the account would free what the account has read ahead.
    pub(super) fn has_room_ahead(&self, account: Option<Id>, bytes: usize) -> bool {
        let account = account.and_then(|id| self.accounts.get(&id));
        account.is_none_or(|account| !account.is_beyond(self.share, bytes))
            && self.spare() >= self.total / 2
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
            delivered: Vec::new(),
            ahead: Vec::new(),
            revoked_at: None,
            slow_since: None,
        };
        self.accounts.insert(id, account);
        id
    }

    /// Ends an account, which holds nothing any more.
    pub(super) fn close(&mut self, account: Id) {
        self.accounts.remove(&account);
    }

    /// Requests `bytes`.
    pub(super) fn ask(
        &mut self,
        priority: MemoryPriority,
        account: Option<Id>,
        bytes: usize,
    ) -> Request {
        let id = self.next_id();
        let asking = account.and_then(|id| self.accounts.get_mut(&id));
        let priority = match &asking {
            Some(asking) if asking.urgent + bytes > URGENT_SHARE_BYTES => MemoryPriority::Bulk,
            Some(_) | None => priority,
        };
        let (waiting, free) = match priority {
            MemoryPriority::Urgent => (self.urgent.len(), self.free),
            MemoryPriority::Bulk => (self.bulk.len(), self.free.saturating_sub(self.reserve)),
        };
        let at_once = waiting == 0 && bytes <= free;
        let parked = match asking {
            Some(asking)
                if priority == MemoryPriority::Bulk && asking.is_beyond(self.share, bytes) =>
            {
                Some(&mut asking.parked)
            }
            Some(asking) => {
                *asking.taken(priority) += bytes;
                asking.held += if at_once { bytes } else { 0 };
                None
            }
            None => None,
        };
        if at_once && parked.is_none() {
            self.free -= bytes;
            let granted = None;
            return Request {
                id,
                priority,
                granted,
            };
        }
        let (grant, granted) = oneshot::channel();
        let granted = Some(granted);
        let waiter = Waiter {
            id,
            priority,
            account,
            bytes,
            grant,
        };
        if let Some(parked) = parked {
            parked.push_back(waiter);
            return Request {
                id,
                priority,
                granted,
            };
        }
        self.enqueue(waiter);
        // The new waiter cannot free anything for others, so a grant is its own.
        let granted = match self.grant().pop() {
            Some(_ours) => None,
            None => granted,
        };
        Request {
            id,
            priority,
            granted,
        }
    }

    fn enqueue(&mut self, waiter: Waiter) {
        let account = waiter.account.and_then(|id| self.accounts.get(&id));
        let is_slow = account.is_some_and(|account| account.slow_since.is_some());
        match waiter.priority {
            MemoryPriority::Urgent => self.urgent.push(waiter, is_slow),
            MemoryPriority::Bulk => self.bulk.push(waiter, is_slow),
        }
    }

    /// Grants bytes to waiters as far as possible. Notify the returned ones without the lock.
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

    /// Takes back `bytes` that were granted in `priority`, and serves the waiters.
    #[must_use]
    pub(super) fn release(
        &mut self,
        account: Option<Id>,
        priority: MemoryPriority,
        bytes: usize,
    ) -> Vec<oneshot::Sender<()>> {
        self.free += bytes;
        if let Some(id) = account
            && let Some(account) = self.accounts.get_mut(&id)
        {
            account.held -= bytes;
            *account.taken(priority) -= bytes;
            if !account.signals.is_revoked() {
                account.revoked_at = None;
            }
        }
        self.unpark(account);
        self.grant()
    }

    /// Moves an account's parked requests to their queues, as far as its share allows.
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

    /// Removes a waiter that has gone, and serves others. Returns `None` if it was granted meanwhile.
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
            let waiter = self
                .urgent
                .remove(account, id)
                .or_else(|| self.bulk.remove(account, id))?;
            if let Some(account) = account.and_then(|id| self.accounts.get_mut(&id)) {
                *account.taken(waiter.priority) -= waiter.bytes;
            }
        }
        self.unpark(account);
        Some(self.grant())
    }

    #[cfg(test)]
    pub(super) fn has_no_accounts(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Returns how many requests wait in the queues.
    pub(super) fn waiting(&self) -> usize {
        self.urgent.len() + self.bulk.len()
    }
}

#[cfg(test)]
mod tests;
