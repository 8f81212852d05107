//! The queue of pulls that wait until they may open a file.
//!
//! Owns: [`PullQueue`]. Refuses: what a pull does in its turn, and how long it waits (`pull`).
//!
//! Invariants: one pull at a time has the turn, and clients are served in turn ([`RoundRobin`]). A wait that is given
//! up leaves nothing behind.

use crate::round_robin::RoundRobin;
use crate::sync::{Mutex, oneshot};
use crate::vocabulary::ClientId;

/// The pulls that wait.
#[derive(Debug, Default)]
pub(super) struct PullQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a pull has the turn.
    taken: bool,
    next: u64,
    waiting: RoundRobin<ClientId, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    turn: oneshot::Sender<()>,
}

/// A place in the queue, and later the turn, until it drops.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    queue: &'a PullQueue,
    client: ClientId,
    id: u64,
    /// `None` once it has the turn.
    receiver: Option<oneshot::Receiver<()>>,
}

impl PullQueue {
    /// Returns whether no pull has or waits for the turn.
    pub(super) fn is_empty(&self) -> bool {
        !self.state.lock().taken
    }

    /// Adds a pull of `client` to the queue.
    pub(super) fn join(&self, client: ClientId) -> Turn<'_> {
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        let receiver = state.taken.then(|| state.push(client, id));
        state.taken = true;
        Turn {
            queue: self,
            client,
            id,
            receiver,
        }
    }
}

impl State {
    fn push(&mut self, client: ClientId, id: u64) -> oneshot::Receiver<()> {
        let (turn, receiver) = oneshot::channel();
        self.waiting.push(client, Waiter { id, turn });
        receiver
    }

    /// Passes the turn to the next pull.
    fn pass(&mut self) {
        let next = self.waiting.pop();
        self.taken = next.is_some();
        if let Some(waiter) = next {
            // The receiver exists until its owner has left the queue, which it does under the lock.
            waiter.turn.send(()).unwrap_or_default();
        }
    }
}

impl Turn<'_> {
    /// Waits for the turn.
    pub(super) async fn granted(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            // The queue keeps the sender until it sends.
            receiver.await.unwrap_or_default();
            self.receiver = None;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        let is_it = |waiter: &Waiter| waiter.id == self.id;
        if self.receiver.is_none() || state.waiting.remove(self.client, is_it).is_none() {
            // It has the turn, or has just been sent it.
            state.pass();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt as _;

    use super::*;

    fn has_turn(turn: &mut Turn<'_>) -> bool {
        turn.granted().now_or_never().is_some()
    }

    /// Guards: a client with many waiting pulls does not delay another. A pull that ends passes its turn on. A pull
    /// that gave up, before its turn or just as it came, blocks no other.
    #[test]
    fn clients_have_their_turn_one_after_the_other() {
        let (queue, greedy, other) = (PullQueue::default(), ClientId(1), ClientId(2));
        let mut first = queue.join(greedy);
        assert!(has_turn(&mut first) && !queue.is_empty());
        let mut many: VecDeque<_> = (0..4).map(|_| queue.join(greedy)).collect();
        let mut one = queue.join(other);
        let gone = queue.join(other);
        drop(first);
        assert!(has_turn(&mut many[0]) && !has_turn(&mut many[1]) && !has_turn(&mut one));
        many.pop_front();
        assert!(has_turn(&mut one) && !has_turn(&mut many[0]));
        drop(gone);
        drop(one);
        // Its turn came before it was dropped.
        many.pop_front();
        assert!(has_turn(&mut many[0]) && !has_turn(&mut many[1]));
        many.clear();
        assert!(queue.is_empty());
        assert!(queue.state.lock().waiting.first().is_none());
    }
}
