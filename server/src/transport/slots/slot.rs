//! What is known of one connection that has a place.
//!
//! Owns: [`Place`], the facts by which `eviction` chooses, and [`Leave`], what the connection is told. Connections write the facts
//! without a lock, and the table reads them.
//! Refuses: choosing.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::recent_bytes::RecentBytes;

/// Time that a new connection has for its first request before it may leave for another, and that one of an address below its share
/// waits before another is cut for it.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// `idle_since_us` of a connection with a request under way.
pub(super) const BUSY: u64 = u64::MAX;

/// One connection's place. It is free again when its [`Taken`] drops.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) peer: IpAddr,
    /// Since when nothing is under way, in microseconds of the clock.
    pub(super) idle_since_us: AtomicU64,
    /// When a byte last moved, or the client was first awaited since.
    pub(super) moved_us: AtomicU64,
    /// Requests that the server works on. While two threads change it, it may be one too few.
    pub(super) working: AtomicIsize,
    /// Since when there is no room to write; 0 while there is.
    pub(super) blocked_since_us: AtomicU64,
    /// Whether the last bytes that moved came from the client.
    pub(super) asked: AtomicBool,
    /// Bytes that moved lately.
    pub(super) recent: RecentBytes,
    /// Whether there was no request yet.
    pub(super) fresh: AtomicBool,
    /// Whether its receive buffers are large.
    pub(super) wide: AtomicBool,
    pub(super) leave: AtomicU8,
    pub(super) told: Notify,
}

/// How a connection is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in crate::transport) enum Leave {
    /// Once nothing is under way.
    WhenIdle = 1,
    /// At once.
    Now = 2,
}

impl Place {
    pub(super) fn new(peer: IpAddr, now_us: u64) -> Self {
        Self {
            peer,
            idle_since_us: AtomicU64::new(now_us),
            moved_us: AtomicU64::new(now_us),
            working: AtomicIsize::new(0),
            blocked_since_us: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            recent: RecentBytes::default(),
            fresh: AtomicBool::new(true),
            wide: AtomicBool::new(false),
            leave: AtomicU8::new(0),
            told: Notify::new(),
        }
    }

    /// Whether its place will be free in a moment.
    pub(super) fn is_leaving(&self) -> bool {
        match self.leave.load(Ordering::Relaxed) {
            0 => false,
            leave => leave >= Leave::Now as u8 || self.is_idle(),
        }
    }

    /// Whether nothing is under way and nothing waits for room: the head of an answer may.
    pub(super) fn is_idle(&self) -> bool {
        let none_under_way = self.idle_since_us.load(Ordering::Relaxed) != BUSY;
        none_under_way && self.blocked_since_us.load(Ordering::Relaxed) == 0
    }

    pub(super) fn is_worked_on(&self) -> bool {
        self.working.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.fresh.load(Ordering::Relaxed)
    }

    pub(super) fn was_told(&self) -> bool {
        self.leave.load(Ordering::Relaxed) > 0
    }

    pub(super) fn tell(&self, leave: Leave) {
        self.leave.fetch_max(leave as u8, Ordering::Relaxed);
        self.told.notify_one();
    }
}

pub(super) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(BUSY - 1)
}
