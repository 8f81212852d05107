//! The connections that wait for a place.
//!
//! Owns: [`Line`]: whose turn it is, and which one is closed where more wait than may. A connection is entitled to a place if its address,
//! with those of it that wait before, has less than its share. Entitled ones have their turn before others, and never wait for one that
//! is not to be accepted. Others wait beside them; once they do so for [`PACE`], those beyond the line are closed, so that what one
//! address has too many is not in the way of others in the kernel's queue.
//! Refuses: places, and who leaves them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::slot::microseconds;

/// Where the first has waited for less, the line moves, and those beyond it wait in the kernel's queue. That has four times as many as the
/// longest line (`accept::BACKLOG`), so the last of them is accepted within about a second.
pub(super) const PACE: Duration = Duration::from_millis(250);
/// The longest line.
const WAITING_MAX: usize = 256;

/// The number of connections that may wait for a place where there are `connections` places.
pub fn connections_waiting_max(connections: usize) -> usize {
    (connections / 4).clamp(1, WAITING_MAX)
}

/// Connections that wait, in the order of their arrival.
#[derive(Debug)]
pub(in crate::transport) struct Line<T> {
    max: usize,
    waiting: Vec<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    peer: IpAddr,
    since_us: u64,
    connection: T,
}

/// The connection that has the next place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// Its number in the line.
    pub(super) index: usize,
    pub(super) peer: IpAddr,
    /// Whether its address has less than its share.
    pub(super) is_entitled: bool,
    /// How long it has waited.
    pub(super) waited_us: u64,
}

impl<T> Line<T> {
    /// The line of a listener with so many places.
    pub(in crate::transport) fn new(connections_max: usize) -> Self {
        Self {
            max: connections_waiting_max(connections_max),
            waiting: Vec::new(),
        }
    }

    pub(in crate::transport) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether one more may be accepted. One beyond the line may, since only then it is known whose it is.
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

    /// The share of each address of `max` places, of which they have as many as `held` says.
    pub(super) fn share(&self, max: usize, held: &HashMap<IpAddr, usize>) -> usize {
        let waiting = self.waiting.iter().map(|waiting| waiting.peer);
        let new: HashSet<_> = waiting.filter(|peer| !held.contains_key(peer)).collect();
        (max / (held.len() + new.len()).max(1)).max(1)
    }

    /// The connection that has the next place.
    pub(super) fn turn(
        &self,
        share: usize,
        held: &HashMap<IpAddr, usize>,
        now_us: u64,
    ) -> Option<Turn> {
        let entitled = self.entitled(share, held);
        let first = entitled.iter().position(|is_entitled| *is_entitled);
        let index = first.unwrap_or_default();
        let waiting = self.waiting.get(index)?;
        Some(Turn {
            index,
            peer: waiting.peer,
            is_entitled: first.is_some(),
            waited_us: now_us.saturating_sub(waiting.since_us),
        })
    }

    /// The connection to close where more wait than may: of those that are not entitled the last of the address of which most wait. While
    /// the line moves nothing is closed, unless one that is entitled would have to wait for it.
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
        if waited_us < microseconds(PACE) && !(is_last_entitled && has_others) {
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

    /// Of each connection, whether its address, with those of it before, has less than its share.
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
