//! The slots of a listener.
//!
//! Owns: [`Slots`] and [`Slot`]. An IPv6 network of 64 bits counts as one address, because one client has a whole
//! network.
//! Refuses: choosing connections to evict, which `eviction` does; closing them: an evicted connection is woken and ends
//! itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::eviction;
use super::queue::WaitingQueue;
use super::slot::{BUSY, Eviction, SlotState, microseconds};
use crate::clock::RunningClock;

/// Least idle time after which a connection is evicted for its large receive buffers.
const LARGE_IDLE_MIN: Duration = Duration::from_secs(2);
/// Least time between two plans of evictions, however many connections arrive meanwhile.
const PLAN_PAUSE: Duration = Duration::from_millis(10);

/// All slots of a listener.
#[derive(Debug)]
pub(in crate::transport) struct Slots {
    max: usize,
    clock: RunningClock,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    taken: HashMap<u64, Arc<SlotState>>,
    peers: HashMap<IpAddr, usize>,
    /// When evictions were last planned.
    planned_us: Option<u64>,
}

/// The decision about a waiting connection.
#[derive(Debug)]
pub(in crate::transport) enum Decision<T> {
    /// It is served in this slot.
    Serve(T, Slot),
    /// It is closed: the queue is full, and others go first.
    Close(T),
}

/// The slot of one connection. It is free again when this is dropped.
#[derive(Debug)]
pub(in crate::transport) struct Slot {
    slots: Arc<Slots>,
    id: u64,
    state: Arc<SlotState>,
}

impl Slots {
    pub(in crate::transport) fn new(max: usize, clock: &RunningClock) -> Arc<Self> {
        Arc::new(Self {
            max,
            clock: clock.clone(),
            table: Mutex::default(),
        })
    }

    /// Adds a connection of `peer` to the queue.
    pub(in crate::transport) fn enqueue<T>(
        &self,
        queue: &mut WaitingQueue<T>,
        peer: IpAddr,
        connection: T,
    ) {
        queue.push(
            client_address(peer),
            microseconds(self.clock.now()),
            connection,
        );
    }

    /// Serves or closes a connection of `queue`. Returns `None` if all have to wait longer; then it evicts others, if
    /// possible.
    pub(in crate::transport) fn decide<T>(
        self: &Arc<Self>,
        queue: &mut WaitingQueue<T>,
    ) -> Option<Decision<T>> {
        let now_us = microseconds(self.clock.now());
        let mut table = self.table.lock();
        let share = queue.share(self.max, &table.peers);
        if let Some(surplus) = queue.surplus(share, &table.peers, now_us) {
            return Some(Decision::Close(queue.remove(surplus)?));
        }
        let next = queue.next_in_queue(share, &table.peers, now_us)?;
        if table.taken.len() >= self.max {
            let planned_us = table.planned_us;
            if planned_us.is_some_and(|at_us| now_us < at_us + microseconds(PLAN_PAUSE)) {
                return None;
            }
            table.planned_us = Some(now_us);
            let slots = table.taken.values().map(Arc::as_ref);
            for (slot, how) in
                eviction::plan_evictions(slots, &table.peers, self.max, share, &next, now_us)
            {
                slot.evict(how);
            }
            return None;
        }
        let connection = queue.remove(next.index)?;
        let (id, state) = (table.next_id, Arc::new(SlotState::new(next.peer, now_us)));
        table.next_id += 1;
        table.taken.insert(id, Arc::clone(&state));
        *table.peers.entry(next.peer).or_default() += 1;
        let slots = Arc::clone(self);
        Some(Decision::Serve(connection, Slot { slots, id, state }))
    }
}

/// Returns the address by which a client is counted.
fn client_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
    }
}

impl Slot {
    /// Returns the address by which the client is counted.
    pub(in crate::transport) fn peer(&self) -> IpAddr {
        self.state.peer
    }

    /// Records whether no request is active. The time of that may be up to 250 ms late.
    pub(in crate::transport) fn set_idle(&self, idle: bool) {
        let since = if idle {
            microseconds(self.slots.clock.coarse())
        } else {
            self.state.is_new.store(false, Ordering::Relaxed);
            BUSY
        };
        self.state.idle_since_us.store(since, Ordering::Relaxed);
    }

    /// Returns since when no request is active; `None` while one is.
    pub(in crate::transport) fn idle_since(&self) -> Option<Duration> {
        let since_us = self.state.idle_since_us.load(Ordering::Relaxed);
        (since_us != BUSY).then(|| Duration::from_micros(since_us))
    }

    /// Records that `bytes` were read or written.
    pub(in crate::transport) fn record_progress(&self, bytes: usize) {
        let now_us = microseconds(self.slots.clock.recent());
        self.state.progress_us.store(now_us, Ordering::Relaxed);
        self.state.recent.add(bytes, now_us);
    }

    /// Records that the server works on one more request.
    pub(in crate::transport) fn start_work(&self) {
        self.state.working.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that the server works on one request less: the request ended, or the server waits for its client.
    pub(in crate::transport) fn finish_work(&self) {
        if self.state.working.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.record_progress(0);
        }
    }

    /// Records since when there is no room to write; `None` if there is room.
    pub(in crate::transport) fn set_blocked(&self, since: Option<Duration>) {
        let since_us = since.map_or(0, |since| microseconds(since).max(1));
        self.state
            .blocked_since_us
            .store(since_us, Ordering::Relaxed);
    }

    /// Records that the client has sent something, or was answered.
    pub(in crate::transport) fn set_request_pending(&self, pending: bool) {
        self.state.request_pending.store(pending, Ordering::Relaxed);
    }

    /// Returns whether the client has begun to send a request that was not answered yet.
    pub(in crate::transport) fn has_request_pending(&self) -> bool {
        self.state.request_pending.load(Ordering::Relaxed)
    }

    /// Returns for how long there has been no room to write; `None` while there is room.
    pub(in crate::transport) fn blocked_for(&self) -> Option<Duration> {
        let since_us = self.state.blocked_since_us.load(Ordering::Relaxed);
        let since = (since_us > 0).then(|| Duration::from_micros(since_us));
        since.map(|since| self.slots.clock.now().saturating_sub(since))
    }

    /// Records that the connection has large receive buffers.
    pub(in crate::transport) fn set_large_buffers(&self) {
        self.state.has_large_buffers.store(true, Ordering::Relaxed);
    }

    /// Evicts the longest idle connection with large receive buffers, because this one needs them. If the address of
    /// this one has such connections, only those are candidates.
    pub(in crate::transport) fn request_large_buffers(&self) {
        let now_us = microseconds(self.slots.clock.now());
        let table = self.slots.table.lock();
        let large = table
            .taken
            .values()
            .filter(|slot| slot.has_large_buffers.load(Ordering::Relaxed));
        let is_own = |slot: &SlotState| slot.peer == self.state.peer;
        let has_own = large.clone().any(|slot| is_own(slot));
        let large = large.filter(|slot| !has_own || is_own(slot));
        let idle =
            large.filter(|slot| slot.is_idle() && slot.eviction.load(Ordering::Relaxed) == 0);
        let since = |slot: &SlotState| slot.idle_since_us.load(Ordering::Relaxed);
        if let Some(slot) = idle.min_by_key(|slot| since(slot))
            && now_us.saturating_sub(since(slot)) >= microseconds(LARGE_IDLE_MIN)
        {
            slot.evict(Eviction::WhenIdle);
        }
    }

    /// Returns whether the connection is evicted.
    pub(in crate::transport) fn is_evicted(&self) -> bool {
        self.state.is_evicted()
    }

    /// Resolves each time the connection is evicted. Of several waits only one resolves.
    pub(in crate::transport) async fn evicted(&self) -> Eviction {
        loop {
            self.state.wake.notified().await;
            match self.state.eviction.load(Ordering::Relaxed) {
                0 => {}
                1 => return Eviction::WhenIdle,
                _ => return Eviction::Now,
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.slots.table.lock();
        table.taken.remove(&self.id);
        if let Some(count) = table.peers.get_mut(&self.state.peer) {
            *count -= 1;
            if *count == 0 {
                table.peers.remove(&self.state.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests;
