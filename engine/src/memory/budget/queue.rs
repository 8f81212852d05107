//! The waiters of one priority, in the order in which they are served.
//!
//! Invariants: accounts are served in turn ([`RoundRobin`]), so one with many requests does not delay others. Accounts
//! that were revoked recently are served after all others. A read without an account has a turn of its own.

use super::{Id, Waiter};
use crate::round_robin::RoundRobin;

#[derive(Debug, Default)]
pub(super) struct Queue {
    prompt: RoundRobin<Id, Waiter>,
    slow: RoundRobin<Id, Waiter>,
    length: usize,
    bytes: usize,
}

impl Queue {
    /// Returns the bytes that are waited for.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of waiters.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Returns the bytes of the next waiter.
    pub(super) fn first_bytes(&self) -> Option<usize> {
        let first = self.prompt.first().or(self.slow.first());
        first.map(|waiter| waiter.bytes)
    }

    pub(super) fn push(&mut self, waiter: Waiter, is_slow: bool) {
        self.length += 1;
        self.bytes += waiter.bytes;
        let asking = asking(waiter.account, waiter.id);
        // An account's requests stay in their order.
        if self.slow.has(asking) || (is_slow && !self.prompt.has(asking)) {
            self.slow.push(asking, waiter);
        } else {
            self.prompt.push(asking, waiter);
        }
    }

    /// Takes the next waiter, if its bytes fit.
    pub(super) fn pop_if(&mut self, fits: impl FnOnce(usize) -> bool) -> Option<Waiter> {
        if !fits(self.first_bytes()?) {
            return None;
        }
        let waiter = self.prompt.pop().or_else(|| self.slow.pop())?;
        self.length -= 1;
        self.bytes -= waiter.bytes;
        Some(waiter)
    }

    pub(super) fn remove(&mut self, account: Option<Id>, id: Id) -> Option<Waiter> {
        let asking = asking(account, id);
        let is_it = |waiter: &Waiter| waiter.id == id;
        let removed = self.prompt.remove(asking, is_it);
        let waiter = removed.or_else(|| self.slow.remove(asking, is_it))?;
        self.length -= 1;
        self.bytes -= waiter.bytes;
        Some(waiter)
    }

    /// Moves an account after all prompt ones.
    pub(super) fn set_slow(&mut self, account: Id) {
        let own = self.prompt.take(account);
        self.slow.append(account, own);
    }
}

/// Returns whose turn a waiter shares. Accounts and waiters are numbered in one sequence.
fn asking(account: Option<Id>, waiter: Id) -> Id {
    account.unwrap_or(waiter)
}
