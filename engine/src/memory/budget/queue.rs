//! Who waits in a lane, in the order in which they are served.
//!
//! Invariants: accounts are served in turn ([`Turns`]), so that one that asks for much at once does not hold up the others;
//! accounts whose clients had to be told to let go are served after all others. A read without an account has a turn of its own.

use super::{Id, Waiter};
use crate::turns::Turns;

#[derive(Debug, Default)]
pub(super) struct Queue {
    prompt: Turns<Id, Waiter>,
    slow: Turns<Id, Waiter>,
    length: usize,
    bytes: usize,
}

impl Queue {
    /// Bytes that are waited for.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Bytes that the next one waits for.
    pub(super) fn first_bytes(&self) -> Option<usize> {
        let first = self.prompt.first().or(self.slow.first());
        first.map(|waiter| waiter.bytes)
    }

    pub(super) fn push(&mut self, waiter: Waiter, is_slow: bool) {
        self.length += 1;
        self.bytes += waiter.bytes;
        let asking = asking(waiter.account, waiter.id);
        // Its own stay in their order.
        if self.slow.has(asking) || (is_slow && !self.prompt.has(asking)) {
            self.slow.push(asking, waiter);
        } else {
            self.prompt.push(asking, waiter);
        }
    }

    /// The next one, if its bytes fit.
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

    /// Puts an account behind those that are prompt.
    pub(super) fn set_slow(&mut self, account: Id) {
        let own = self.prompt.take(account);
        self.slow.append(account, own);
    }
}

/// Whose turn a waiter shares: accounts and waiters have their numbers from one sequence.
fn asking(account: Option<Id>, waiter: Id) -> Id {
    account.unwrap_or(waiter)
}
