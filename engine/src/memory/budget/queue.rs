//! Who waits in a lane, in the order in which they are served.
//!
//! Invariants: accounts are served in turn, each its own requests in the order in which they came, so that an account that
//! asks for much at once does not hold up the others; accounts whose clients had to be told to let go are served after all
//! others. A read without an account has a turn of its own.

use std::collections::{HashMap, VecDeque};

use super::{Id, Waiter};

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: HashMap<Id, VecDeque<Waiter>>,
    /// Whose turn it is, of the prompt and of the slow accounts.
    prompt: VecDeque<Id>,
    slow: VecDeque<Id>,
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
        let asking = self.prompt.front().or(self.slow.front())?;
        let first = self.waiters.get(asking).and_then(VecDeque::front);
        first.map(|waiter| waiter.bytes)
    }

    pub(super) fn push(&mut self, waiter: Waiter, is_slow: bool) {
        self.length += 1;
        self.bytes += waiter.bytes;
        let asking = asking(waiter.account, waiter.id);
        let own = self.waiters.entry(asking).or_default();
        if own.is_empty() {
            let turns = if is_slow {
                &mut self.slow
            } else {
                &mut self.prompt
            };
            turns.push_back(asking);
        }
        own.push_back(waiter);
    }

    /// The next one, if its bytes fit.
    pub(super) fn pop_if(&mut self, fits: impl FnOnce(usize) -> bool) -> Option<Waiter> {
        if !fits(self.first_bytes()?) {
            return None;
        }
        let turns = if self.prompt.is_empty() {
            &mut self.slow
        } else {
            &mut self.prompt
        };
        let asking = turns.pop_front()?;
        let own = self.waiters.get_mut(&asking)?;
        let waiter = own.pop_front()?;
        if own.is_empty() {
            self.waiters.remove(&asking);
        } else {
            turns.push_back(asking);
        }
        self.length -= 1;
        self.bytes -= waiter.bytes;
        Some(waiter)
    }

    pub(super) fn remove(&mut self, account: Option<Id>, id: Id) -> Option<Waiter> {
        let asking = asking(account, id);
        let own = self.waiters.get_mut(&asking)?;
        let place = own.iter().position(|waiter| waiter.id == id)?;
        let waiter = own.remove(place)?;
        if own.is_empty() {
            self.waiters.remove(&asking);
            self.prompt.retain(|other| *other != asking);
            self.slow.retain(|other| *other != asking);
        }
        self.length -= 1;
        self.bytes -= waiter.bytes;
        Some(waiter)
    }

    /// Puts an account behind those that are prompt.
    pub(super) fn set_slow(&mut self, account: Id) {
        if let Some(place) = self.prompt.iter().position(|other| *other == account) {
            self.prompt.remove(place);
            self.slow.push_back(account);
        }
    }
}

/// Whose turn a waiter shares: accounts and waiters have their numbers from one sequence.
fn asking(account: Option<Id>, waiter: Id) -> Id {
    account.unwrap_or(waiter)
}
