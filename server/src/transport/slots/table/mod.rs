//! The places of a listener.
//!
//! Owns: [`Places`] and [`Taken`], one connection's place. The connections that wait are a [`Line`], and `eviction` chooses who leaves
//! for them. Of IPv6 a network of 64 bits counts as one address: that is what one client has.
//! Refuses: closing anything; a connection is told, and `connection` ends it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::eviction;
use super::queue::Line;
use super::slot::{BUSY, Leave, Place, microseconds};
use crate::clock::RunningClock;

/// A connection with large receive buffers may be ended for another's sake once it has been idle for so long.
const WIDE_IDLE_MIN: Duration = Duration::from_secs(2);
/// Time between two looks at all connections, however many come meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// All places of a listener.
#[derive(Debug)]
pub(in crate::transport) struct Places {
    max: usize,
    clock: RunningClock,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    taken: HashMap<u64, Arc<Place>>,
    peers: HashMap<IpAddr, usize>,
    /// When it was last looked for connections to leave.
    looked_us: Option<u64>,
}

/// What becomes of a connection that waits.
#[derive(Debug)]
pub(in crate::transport) enum Next<T> {
    /// It has a place.
    Serve(T, Taken),
    /// It is closed: more wait than may, and others have a better claim.
    Close(T),
}

/// A place, until it drops.
#[derive(Debug)]
pub(in crate::transport) struct Taken {
    places: Arc<Places>,
    id: u64,
    place: Arc<Place>,
}

impl Places {
    pub(in crate::transport) fn new(max: usize, clock: &RunningClock) -> Arc<Self> {
        Arc::new(Self {
            max,
            clock: clock.clone(),
            table: Mutex::default(),
        })
    }

    /// Adds a connection of `peer` to those that wait.
    pub(in crate::transport) fn arrive<T>(&self, line: &mut Line<T>, peer: IpAddr, connection: T) {
        line.push(client(peer), microseconds(self.clock.now()), connection);
    }

    /// What becomes of a connection of `line` now, if anything does. Where one waits on, others are told to leave, if any can be.
    pub(in crate::transport) fn next<T>(self: &Arc<Self>, line: &mut Line<T>) -> Option<Next<T>> {
        let now_us = microseconds(self.clock.now());
        let mut table = self.table.lock();
        let share = line.share(self.max, &table.peers);
        if let Some(surplus) = line.surplus(share, &table.peers, now_us) {
            return Some(Next::Close(line.remove(surplus)?));
        }
        let turn = line.turn(share, &table.peers, now_us)?;
        if table.taken.len() >= self.max {
            let looked_us = table.looked_us;
            if looked_us.is_some_and(|at_us| now_us < at_us + microseconds(LOOK_PAUSE)) {
                return None;
            }
            table.looked_us = Some(now_us);
            let places = table.taken.values().map(Arc::as_ref);
            for (place, leave) in
                eviction::plan(places, &table.peers, self.max, share, &turn, now_us)
            {
                place.tell(leave);
            }
            return None;
        }
        let connection = line.remove(turn.index)?;
        let (id, place) = (table.next, Arc::new(Place::new(turn.peer, now_us)));
        table.next += 1;
        table.taken.insert(id, Arc::clone(&place));
        *table.peers.entry(turn.peer).or_default() += 1;
        let places = Arc::clone(self);
        Some(Next::Serve(connection, Taken { places, id, place }))
    }
}

/// The address by which a client is counted.
fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
    }
}

impl Taken {
    /// The address by which the client is counted.
    pub(in crate::transport) fn peer(&self) -> IpAddr {
        self.place.peer
    }

    /// Nothing is under way any more, or something is.
    pub(in crate::transport) fn set_idle(&self, idle: bool) {
        let since = if idle {
            microseconds(self.places.clock.now())
        } else {
            self.place.fresh.store(false, Ordering::Relaxed);
            BUSY
        };
        self.place.idle_since_us.store(since, Ordering::Relaxed);
    }

    /// Since when nothing is under way; `None` while something is.
    pub(in crate::transport) fn idle_since(&self) -> Option<Duration> {
        let since_us = self.place.idle_since_us.load(Ordering::Relaxed);
        (since_us != BUSY).then(|| Duration::from_micros(since_us))
    }

    /// So many bytes were read or written.
    pub(in crate::transport) fn moved(&self, bytes: usize) {
        let now_us = microseconds(self.places.clock.recent());
        self.place.moved_us.store(now_us, Ordering::Relaxed);
        self.place.recent.add(bytes, now_us);
    }

    /// The server works on one more request.
    pub(in crate::transport) fn work_begins(&self) {
        self.place.working.fetch_add(1, Ordering::Relaxed);
    }

    /// One of the requests is over, or its client is awaited.
    pub(in crate::transport) fn work_ends(&self) {
        if self.place.working.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.moved(0);
        }
    }

    /// There is no room to write since then, or there is again.
    pub(in crate::transport) fn set_blocked(&self, since: Option<Duration>) {
        let since_us = since.map_or(0, |since| microseconds(since).max(1));
        self.place
            .blocked_since_us
            .store(since_us, Ordering::Relaxed);
    }

    /// The client has sent something, or was answered.
    pub(in crate::transport) fn set_asked(&self, asked: bool) {
        self.place.asked.store(asked, Ordering::Relaxed);
    }

    /// Whether the client has begun to send what was not answered yet.
    pub(in crate::transport) fn has_asked(&self) -> bool {
        self.place.asked.load(Ordering::Relaxed)
    }

    /// How long there has been no room to write; `None` while there is.
    pub(in crate::transport) fn blocked_for(&self) -> Option<Duration> {
        let since_us = self.place.blocked_since_us.load(Ordering::Relaxed);
        let since = (since_us > 0).then(|| Duration::from_micros(since_us));
        since.map(|since| self.places.clock.now().saturating_sub(since))
    }

    /// The connection has large receive buffers.
    pub(in crate::transport) fn set_wide(&self) {
        self.place.wide.store(true, Ordering::Relaxed);
    }

    /// The connection has none because there is no memory: of those with some, the one that has been idle the longest leaves. An address
    /// that has some is at its share, so only its own leave.
    pub(in crate::transport) fn want_wide(&self) {
        let now_us = microseconds(self.places.clock.now());
        let table = self.places.table.lock();
        let wide = table
            .taken
            .values()
            .filter(|place| place.wide.load(Ordering::Relaxed));
        let is_own = |place: &Place| place.peer == self.place.peer;
        let has_own = wide.clone().any(|place| is_own(place));
        let wide = wide.filter(|place| !has_own || is_own(place));
        let idle = wide.filter(|place| place.is_idle() && place.leave.load(Ordering::Relaxed) == 0);
        let since = |place: &Place| place.idle_since_us.load(Ordering::Relaxed);
        if let Some(place) = idle.min_by_key(|place| since(place))
            && now_us.saturating_sub(since(place)) >= microseconds(WIDE_IDLE_MIN)
        {
            place.tell(Leave::WhenIdle);
        }
    }

    /// Whether the connection was told to leave before.
    pub(in crate::transport) fn was_told(&self) -> bool {
        self.place.was_told()
    }

    /// Resolves when the connection is told to leave, each time. Of several waits only one resolves.
    pub(in crate::transport) async fn told(&self) -> Leave {
        loop {
            self.place.told.notified().await;
            match self.place.leave.load(Ordering::Relaxed) {
                0 => {}
                1 => return Leave::WhenIdle,
                _ => return Leave::Now,
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut table = self.places.table.lock();
        table.taken.remove(&self.id);
        if let Some(count) = table.peers.get_mut(&self.place.peer) {
            *count -= 1;
            if *count == 0 {
                table.peers.remove(&self.place.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests;
