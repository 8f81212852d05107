//! Places for connections, and the choice of those that end when all are taken.
//!
//! Owns: [`Places`]. Idle connections leave first, the one that has been idle the longest before the others; a new one has [`GRACE`] for
//! its first request, and those that come after it and have been idle for less time do not leave before it. Then those on which nothing
//! has moved for [`SILENT_MIN`] though their clients are awaited; where the server works on a request, its client is not silent.
//! Connections of an address that has more than its share leave before those of others, each after its request. The share is all places
//! by the number of addresses, so it matters only when the places are taken, and never for a single address, such as a proxy's. Of IPv6 a
//! network of 64 bits counts as one address: that is what one client has.
//! Refuses: closing anything; a connection is told, and `connection` ends it.
//!
//! Invariant: a new client waits longer than [`GRACE`] only while on every connection something moves and its own address has its share.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::RunningClock;

/// A connection with a request on which nothing moves for so long may be cut for a new one.
const SILENT_MIN: Duration = Duration::from_secs(10);
/// Time that a new connection has for its first request before it may leave for another.
const GRACE: Duration = Duration::from_secs(1);
/// Of the idle connections, one in so many leaves at a time.
const AT_A_TIME_PART: usize = 64;
/// A connection with large receive buffers may be ended for another's sake once it has been idle for so long.
const WIDE_IDLE_MIN: Duration = Duration::from_secs(2);
/// A connection that was told to leave after its request is cut after so long, if its address has more than its share.
const EXCESS_MAX: Duration = Duration::from_mins(5);
/// `idle_since_us` of a connection with a request under way.
const BUSY: u64 = u64::MAX;

/// All places of a listener.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    clock: RunningClock,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    taken: HashMap<u64, Arc<Place>>,
    peers: HashMap<IpAddr, usize>,
}

/// One connection's place. It is free again when its [`Taken`] drops.
#[derive(Debug)]
pub(super) struct Place {
    peer: IpAddr,
    /// Since when nothing is under way, in microseconds of the clock.
    idle_since_us: AtomicU64,
    /// When a byte last moved, or the client was first awaited since.
    moved_us: AtomicU64,
    /// Requests that the server works on. While two threads change it, it may be one too few.
    working: AtomicIsize,
    /// Since when there is no room to write; 0 while there is.
    blocked_since_us: AtomicU64,
    /// Whether the last bytes that moved came from the client.
    asked: AtomicBool,
    /// When it was told to leave first.
    told_us: AtomicU64,
    /// Whether there was no request yet.
    fresh: AtomicBool,
    /// Whether its receive buffers are large.
    wide: AtomicBool,
    leave: AtomicU8,
    told: Notify,
}

/// How a connection is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Leave {
    /// Once nothing is under way.
    WhenIdle = 1,
    /// At once.
    Now = 2,
}

/// A place, until it drops.
#[derive(Debug)]
pub(super) struct Taken {
    places: Arc<Places>,
    id: u64,
    place: Arc<Place>,
}

impl Places {
    pub(super) fn new(max: usize, clock: &RunningClock) -> Arc<Self> {
        Arc::new(Self {
            max,
            clock: clock.clone(),
            table: Mutex::default(),
        })
    }

    /// Takes a place for a client of `peer`, if one is free. Otherwise tells somebody to leave, if anybody can be.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Taken> {
        let peer = client(peer);
        let now_us = microseconds(self.clock.now());
        let mut table = self.table.lock();
        if table.taken.len() >= self.max {
            table.make_room(self.max, peer, now_us);
            return None;
        }
        let (id, place) = (table.next, Arc::new(Place::new(peer, now_us)));
        table.next += 1;
        table.taken.insert(id, Arc::clone(&place));
        *table.peers.entry(peer).or_default() += 1;
        Some(Taken {
            places: Arc::clone(self),
            id,
            place,
        })
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

/// Who leaves first: the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// Something moves, but its address has more than its share, and the newcomer's does not.
    Excess {
        was_told: bool,
    },
    Silent {
        over_share: bool,
    },
    Idle {
        over_share: bool,
    },
}

impl Table {
    /// Tells the connections to leave that come first, unless one is leaving already.
    fn make_room(&self, max: usize, newcomer: IpAddr, now_us: u64) {
        if self.taken.values().any(|place| place.is_leaving()) {
            return;
        }
        let peers = self.peers.len() + usize::from(!self.peers.contains_key(&newcomer));
        let share = (max / peers).max(1);
        let count = |peer| self.peers.get(&peer).copied().unwrap_or_default();
        let entitled = count(newcomer) < share;
        let mut staying = HashMap::<IpAddr, usize>::new();
        for place in self.taken.values().filter(|place| !place.was_told()) {
            *staying.entry(place.peer).or_default() += 1;
        }
        let mut ranked: Vec<(Claim, u64, &Arc<Place>)> = self
            .taken
            .values()
            .filter_map(|place| {
                let over_share = count(place.peer) > share;
                // As many of an address as it has beyond its share.
                let more_leave = staying.get(&place.peer).is_some_and(|count| *count > share);
                let excess = over_share && entitled && (more_leave || place.was_told());
                let (claim, since_us) = place.claim(over_share, excess, now_us)?;
                Some((claim, now_us.saturating_sub(since_us), place))
            })
            .collect();
        ranked.sort_unstable_by_key(|(claim, age_us, _)| (*claim, *age_us));
        let (idle, others): (Vec<_>, Vec<_>) = ranked
            .into_iter()
            .rev()
            .partition(|(claim, ..)| matches!(claim, Claim::Idle { .. }));
        let mut new_us = None;
        let leaving = idle.into_iter().filter(|(_, age_us, place)| {
            if place.is_fresh() && *age_us < microseconds(GRACE) {
                new_us = new_us.max(Some(*age_us));
            }
            // Those that come after a new one and have been idle for less time leave no sooner.
            new_us.is_none_or(|new_us| *age_us > new_us)
        });
        // Several at a time, so that many clients at once do not wait for one after the other.
        let leaving: Vec<_> = leaving.take((max / AT_A_TIME_PART).max(1)).collect();
        for (_, _, place) in &leaving {
            place.tell(Leave::WhenIdle, now_us);
        }
        // A place that a new one has may leave within GRACE.
        if leaving.is_empty()
            && new_us.is_none()
            && let Some((claim, _, place)) = others.first()
        {
            let leave = if matches!(claim, Claim::Excess { was_told: false }) {
                Leave::WhenIdle
            } else {
                Leave::Now
            };
            place.tell(leave, now_us);
        }
    }
}

impl Place {
    fn new(peer: IpAddr, now_us: u64) -> Self {
        Self {
            peer,
            idle_since_us: AtomicU64::new(now_us),
            moved_us: AtomicU64::new(now_us),
            working: AtomicIsize::new(0),
            blocked_since_us: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            told_us: AtomicU64::new(0),
            fresh: AtomicBool::new(true),
            wide: AtomicBool::new(false),
            leave: AtomicU8::new(0),
            told: Notify::new(),
        }
    }

    /// What makes it leave, and since when that is so.
    fn claim(&self, over_share: bool, excess: bool, now_us: u64) -> Option<(Claim, u64)> {
        if self.leave.load(Ordering::Relaxed) >= Leave::Now as u8 {
            return None;
        }
        let (idle_us, moved_us) = (
            self.idle_since_us.load(Ordering::Relaxed),
            self.moved_us.load(Ordering::Relaxed),
        );
        if self.is_idle() {
            return Some((Claim::Idle { over_share }, idle_us));
        }
        let is_awaited = self.working.load(Ordering::Relaxed) <= 0;
        if is_awaited && now_us.saturating_sub(moved_us) >= microseconds(SILENT_MIN) {
            return Some((Claim::Silent { over_share }, moved_us));
        }
        if !excess {
            return None;
        }
        if !self.was_told() {
            return Some((Claim::Excess { was_told: false }, moved_us));
        }
        let told_us = self.told_us.load(Ordering::Relaxed);
        let is_late = now_us.saturating_sub(told_us) >= microseconds(EXCESS_MAX);
        is_late.then_some((Claim::Excess { was_told: true }, told_us))
    }

    /// Whether its place will be free in a moment.
    fn is_leaving(&self) -> bool {
        match self.leave.load(Ordering::Relaxed) {
            0 => false,
            leave => leave >= Leave::Now as u8 || self.is_idle(),
        }
    }

    /// Whether nothing is under way and nothing waits for room: the head of an answer may.
    fn is_idle(&self) -> bool {
        let none_under_way = self.idle_since_us.load(Ordering::Relaxed) != BUSY;
        none_under_way && self.blocked_since_us.load(Ordering::Relaxed) == 0
    }

    fn is_fresh(&self) -> bool {
        self.fresh.load(Ordering::Relaxed)
    }

    fn was_told(&self) -> bool {
        self.leave.load(Ordering::Relaxed) > 0
    }

    fn tell(&self, leave: Leave, now_us: u64) {
        if self.leave.fetch_max(leave as u8, Ordering::Relaxed) == 0 {
            self.told_us.store(now_us, Ordering::Relaxed);
        }
        self.told.notify_one();
    }
}

impl Taken {
    /// The address by which the client is counted.
    pub(super) fn peer(&self) -> IpAddr {
        self.place.peer
    }

    /// Nothing is under way any more, or something is.
    pub(super) fn set_idle(&self, idle: bool) {
        let since = if idle {
            microseconds(self.places.clock.now())
        } else {
            self.place.fresh.store(false, Ordering::Relaxed);
            BUSY
        };
        self.place.idle_since_us.store(since, Ordering::Relaxed);
    }

    /// Bytes were read or written.
    pub(super) fn moved(&self) {
        let now_us = microseconds(self.places.clock.recent());
        self.place.moved_us.store(now_us, Ordering::Relaxed);
    }

    /// The server works on one more request.
    pub(super) fn work_begins(&self) {
        self.place.working.fetch_add(1, Ordering::Relaxed);
    }

    /// One of the requests is over, or its client is awaited.
    pub(super) fn work_ends(&self) {
        if self.place.working.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.moved();
        }
    }

    /// There is no room to write since then, or there is again.
    pub(super) fn set_blocked(&self, since: Option<Duration>) {
        let since_us = since.map_or(0, |since| microseconds(since).max(1));
        self.place
            .blocked_since_us
            .store(since_us, Ordering::Relaxed);
    }

    /// The client has sent something, or was answered.
    pub(super) fn set_asked(&self, asked: bool) {
        self.place.asked.store(asked, Ordering::Relaxed);
    }

    /// Whether the client has begun to send what was not answered yet.
    pub(super) fn has_asked(&self) -> bool {
        self.place.asked.load(Ordering::Relaxed)
    }

    /// How long there has been no room to write; `None` while there is.
    pub(super) fn blocked_for(&self) -> Option<Duration> {
        let since_us = self.place.blocked_since_us.load(Ordering::Relaxed);
        let since = (since_us > 0).then(|| Duration::from_micros(since_us));
        since.map(|since| self.places.clock.now().saturating_sub(since))
    }

    /// The connection has large receive buffers.
    pub(super) fn set_wide(&self) {
        self.place.wide.store(true, Ordering::Relaxed);
    }

    /// The connection has none because there is no memory: of those with some, the one that has been idle the longest leaves. An address
    /// that has some is at its share, so only its own leave.
    pub(super) fn want_wide(&self) {
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
            place.tell(Leave::WhenIdle, now_us);
        }
    }

    /// Whether the connection was told to leave before.
    pub(super) fn was_told(&self) -> bool {
        self.place.was_told()
    }

    /// Resolves when the connection is told to leave, each time. Of several waits only one resolves.
    pub(super) async fn told(&self) -> Leave {
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

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(BUSY - 1)
}

#[cfg(test)]
mod tests;
