//! A queue in which clients take turns.
//!
//! Owns: [`ClientTurns`]. Refuses: waiting, and what an item is.
//!
//! Invariants: of the clients that wait, each has an item served before any has a second. What serves no client is
//! short, and requests of all clients wait for it: index pages, opens. So every second turn is the engine's, if it has
//! work. The items of one client, and those of the engine, keep their order.

use std::collections::VecDeque;

use crate::round_robin::RoundRobin;
use crate::vocabulary::ClientId;

/// Items by client, served in turn.
#[derive(Debug)]
pub(crate) struct ClientTurns<T> {
    engine: VecDeque<T>,
    clients: RoundRobin<ClientId, T>,
    /// Whether the turn is the clients'.
    is_clients: bool,
}

impl<T> Default for ClientTurns<T> {
    fn default() -> Self {
        Self {
            engine: VecDeque::new(),
            clients: RoundRobin::default(),
            is_clients: false,
        }
    }
}

impl<T> ClientTurns<T> {
    /// Adds an item after those of its client.
    pub(crate) fn push(&mut self, client: ClientId, item: T) {
        if client == ClientId::ENGINE {
            self.engine.push_back(item);
        } else {
            self.clients.push(client, item);
        }
    }

    /// Returns the item to be taken next.
    pub(crate) fn first(&self) -> Option<&T> {
        let (engine, clients) = (self.engine.front(), self.clients.first());
        if self.is_clients {
            clients.or(engine)
        } else {
            engine.or(clients)
        }
    }

    /// Takes the next item.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let of_clients = if self.is_clients {
            self.clients.first().is_some()
        } else {
            self.engine.is_empty()
        };
        self.is_clients = !of_clients;
        if of_clients {
            self.clients.pop()
        } else {
            self.engine.pop_front()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: clients take turns, however many items each has, and every second turn is the engine's.
    #[test]
    fn clients_take_turns_with_each_other_and_with_the_engine() {
        let mut turns = ClientTurns::default();
        let items = [
            (1, 10),
            (1, 11),
            (1, 12),
            (2, 20),
            (0, 1),
            (0, 2),
            (2, 21),
            (0, 3),
        ];
        for (client, item) in items {
            turns.push(ClientId(client), item);
        }
        let order: Vec<i32> = std::iter::from_fn(|| {
            let first = turns.first().copied();
            let taken = turns.pop();
            assert_eq!(taken, first);
            taken
        })
        .collect();
        assert_eq!(order, [1, 10, 2, 20, 3, 11, 21, 12]);
        turns.push(ClientId(1), 13);
        turns.push(ClientId::ENGINE, 4);
        assert_eq!(turns.pop(), Some(4), "the turn before was a client's");
    }
}
