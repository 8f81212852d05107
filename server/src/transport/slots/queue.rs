//! The connections that wait for a slot.
//!
//! Owns: [`WaitingQueue`]: which connection gets the next slot, and which is closed when the queue is full. A
//! connection is entitled to a slot if its address has less than its share, including its connections that wait before
//! this one. Entitled connections go first, and are never left in the kernel's queue for one that is not entitled. Once
//! the first has waited for [`STALL_MIN`], those beyond the length of the queue are closed. So the surplus of one
//! address does not block others in the kernel's queue.
//! Refuses: slots, and the choice of connections to evict.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::slot::microseconds;

/// While the first has waited for less, the queue counts as moving, and further connections wait in the kernel's queue.
/// That is four times as long (`accept::BACKLOG`), so its last one is accepted within about a second.
pub(super) const STALL_MIN: Duration = Duration::from_millis(250);
/// Longest queue of a listener.
const QUEUE_LENGTH_MAX: usize = 256;

/// Returns how many connections may wait for a slot if there are `connections` slots.
pub fn connections_waiting_max(connections: usize) -> usize {
    (connections / 4).clamp(1, QUEUE_LENGTH_MAX)
}

/// Connections that wait, in the order of their arrival.
#[derive(Debug)]
pub(in crate::transport) struct WaitingQueue<T> {
    max: usize,
    waiting: Vec<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    peer: IpAddr,
    since_us: u64,
    connection: T,
}

/// The connection that gets the next slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextWaiting {
    /// Its position in the queue.
    pub(super) index: usize,
    pub(super) peer: IpAddr,
    /// Whether its address has less than its share.
    pub(super) is_entitled: bool,
    /// How long it has waited.
    pub(super) waited_us: u64,
}

impl<T> WaitingQueue<T> {
    /// Creates the queue of a listener with so many slots.
    pub(in crate::transport) fn new(connections_max: usize) -> Self {
        Self {
            max: connections_waiting_max(connections_max),
            waiting: Vec::new(),
        }
    }

    pub(in crate::transport) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns whether one more may be accepted. One beyond the length may, because its address is known only then.
    pub(in crate::transport) fn has_room(&self) -> bool {
        self.waiting.len() <= self.max
    }

    pub(super) fn push(&mut self, peer: IpAddr, since_us: u64, connection: T) {
        self.waiting.push(Waiting {
            peer,
            since_us,
            connection,
        });
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<T> {
        (index < self.waiting.len()).then(|| self.waiting.remove(index).connection)
    }

    /// Returns the share of each address, of `max` slots. `held` are the slots that each has.
    pub(super) fn share(&self, max: usize, held: &HashMap<IpAddr, usize>) -> usize {
        let waiting = self.waiting.iter().map(|waiting| waiting.peer);
        let new: HashSet<_> = waiting.filter(|peer| !held.contains_key(peer)).collect();
        (max / (held.len() + new.len()).max(1)).max(1)
    }

    /// The connection that gets the next slot.
    pub(super) fn next_in_queue(
        &self,
        share: usize,
        held: &HashMap<IpAddr, usize>,
        now_us: u64,
    ) -> Option<NextWaiting> {
        let entitled = self.entitled(share, held);
        let first = entitled.iter().position(|is_entitled| *is_entitled);
        let index = first.unwrap_or_default();
        let waiting = self.waiting.get(index)?;
        Some(NextWaiting {
            index,
            peer: waiting.peer,
            is_entitled: first.is_some(),
            waited_us: now_us.saturating_sub(waiting.since_us),
        })
    }

    /// Returns the connection to close if the queue is too long: of those that are not entitled, the last one of the
    /// address with the most waiting. While the queue moves, none is closed, unless an entitled one would have to wait
    /// for it.
    pub(super) fn surplus(
        &self,
        share: usize,
        held: &HashMap<IpAddr, usize>,
        now_us: u64,
    ) -> Option<usize> {
        if self.waiting.len() <= self.max {
            return None;
        }
        let entitled = self.entitled(share, held);
        let has_others = entitled.contains(&false);
        let is_last_entitled = entitled.last() == Some(&true);
        let waited_us = now_us.saturating_sub(self.waiting.first()?.since_us);
        if waited_us < microseconds(STALL_MIN) && !(is_last_entitled && has_others) {
            return None;
        }
        let candidates = self.waiting.iter().zip(entitled).enumerate();
        let candidates = candidates
            .filter(|(_, (_, is_entitled))| !(has_others && *is_entitled))
            .map(|(index, (waiting, _))| (index, waiting.peer));
        let mut counts = HashMap::<IpAddr, usize>::new();
        for (_, peer) in candidates.clone() {
            *counts.entry(peer).or_default() += 1;
        }
        let most = candidates.max_by_key(|(index, peer)| (counts.get(peer).copied(), *index));
        most.map(|(index, _)| index)
    }

    /// Returns for each connection whether it is entitled to a slot.
    fn entitled(&self, share: usize, held: &HashMap<IpAddr, usize>) -> Vec<bool> {
        let mut counts = HashMap::<IpAddr, usize>::new();
        let waiting = self.waiting.iter().map(|waiting| {
            let held = held.get(&waiting.peer).copied().unwrap_or_default();
            let count = counts.entry(waiting.peer).or_insert(held);
            *count += 1;
            *count <= share
        });
        waiting.collect()
    }
}
