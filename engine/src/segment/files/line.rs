//! Whose turn it is of the pulls that wait until they may open a file.
//!
//! Owns: [`Line`] and [`ClientId`]. Refuses: what a pull does in its turn, and how long it waits (`pull`).
//!
//! Invariants: one has its turn at a time; clients have theirs one after the other, however many pulls each waits with, each
//! client's own in the order in which they came; a wait that is given up leaves nothing behind.

use std::collections::{HashMap, VecDeque};

use crate::sync::{Mutex, oneshot};

/// Who pulls: what a client is, its address for example, is for the caller to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ClientId(pub u128);

/// Pulls that wait.
#[derive(Debug, Default)]
pub(super) struct Line {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether anybody has its turn.
    taken: bool,
    next: u64,
    waiting: HashMap<ClientId, VecDeque<Waiter>>,
    /// The clients that wait, each once.
    clients: VecDeque<ClientId>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    turn: oneshot::Sender<()>,
}

/// A place in the line, and then the turn, until it drops.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    line: &'a Line,
    client: ClientId,
    id: u64,
    /// `None` once it has its turn.
    coming: Option<oneshot::Receiver<()>>,
}

impl Line {
    /// Whether nobody has or waits for a turn.
    pub(super) fn is_empty(&self) -> bool {
        !self.state.lock().taken
    }

    /// A place for one more pull of `client`.
    pub(super) fn join(&self, client: ClientId) -> Turn<'_> {
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        let coming = state.taken.then(|| state.push(client, id));
        state.taken = true;
        Turn {
            line: self,
            client,
            id,
            coming,
        }
    }
}

impl State {
    fn push(&mut self, client: ClientId, id: u64) -> oneshot::Receiver<()> {
        let (turn, coming) = oneshot::channel();
        let own = self.waiting.entry(client).or_default();
        if own.is_empty() {
            self.clients.push_back(client);
        }
        own.push_back(Waiter { id, turn });
        coming
    }

    /// Takes a waiter out; `None` if its turn came.
    fn remove(&mut self, client: ClientId, id: u64) -> Option<Waiter> {
        let own = self.waiting.get_mut(&client)?;
        let place = own.iter().position(|waiter| waiter.id == id)?;
        let waiter = own.remove(place);
        if own.is_empty() {
            self.waiting.remove(&client);
            self.clients.retain(|other| *other != client);
        }
        waiter
    }

    /// Gives the turn to the next one.
    fn pass(&mut self) {
        self.taken = false;
        let Some(client) = self.clients.pop_front() else {
            return;
        };
        let Some(own) = self.waiting.get_mut(&client) else {
            return;
        };
        let first = own.pop_front();
        if own.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.clients.push_back(client);
        }
        if let Some(waiter) = first {
            self.taken = true;
            // Its end is there until it has taken itself out, which it does under the lock.
            waiter.turn.send(()).unwrap_or_default();
        }
    }
}

impl Turn<'_> {
    /// Waits for the turn.
    pub(super) async fn come(&mut self) {
        if let Some(coming) = &mut self.coming {
            // The line keeps the other end until it sends.
            coming.await.unwrap_or_default();
            self.coming = None;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.line.state.lock();
        if self.coming.is_none() || state.remove(self.client, self.id).is_none() {
            state.pass();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn has_turn(turn: &mut Turn<'_>) -> bool {
        turn.come().now_or_never().is_some()
    }

    /// Guards: a client that waits with many pulls does not hold up another, who goes gives its turn on, and one that gave its wait up,
    /// before its turn or in the moment it came, keeps nobody waiting.
    #[test]
    fn clients_have_their_turn_one_after_the_other() {
        let (line, greedy, other) = (Line::default(), ClientId(1), ClientId(2));
        let mut first = line.join(greedy);
        assert!(has_turn(&mut first) && !line.is_empty());
        let mut many: VecDeque<_> = (0..4).map(|_| line.join(greedy)).collect();
        let mut one = line.join(other);
        let gone = line.join(other);
        drop(first);
        assert!(has_turn(&mut many[0]) && !has_turn(&mut many[1]) && !has_turn(&mut one));
        many.pop_front();
        assert!(has_turn(&mut one) && !has_turn(&mut many[0]));
        drop(gone);
        drop(one);
        // Its turn came, and it never looked.
        many.pop_front();
        assert!(has_turn(&mut many[0]) && !has_turn(&mut many[1]));
        many.clear();
        assert!(line.is_empty());
        let state = line.state.lock();
        assert!(state.waiting.is_empty() && state.clients.is_empty());
    }
}
