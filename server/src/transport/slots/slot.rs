//! The state of one connection that has a slot.
//!
//! Owns: [`SlotState`], by which `eviction` chooses, and [`Eviction`]. Connections write the state without a lock;
//! planning reads it.
//! Refuses: choosing.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::recent_bytes::RecentBytes;

/// Time that a new connection has for its first request before it may be evicted. A connection of an address below its
/// share waits as long before another is closed for it.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// `idle_since_us` of a connection with an active request.
pub(super) const BUSY: u64 = u64::MAX;

/// The state of one connection. Times are in microseconds of the clock.
#[derive(Debug)]
pub(super) struct SlotState {
    pub(super) peer: IpAddr,
    /// Since when no request is active.
    pub(super) idle_since_us: AtomicU64,
    /// When a byte last moved or the server began to wait for the client, whichever is later.
    pub(super) progress_us: AtomicU64,
    /// Requests that the server works on. While two threads change it, it may be one too low.
    pub(super) working: AtomicIsize,
    /// Since when there is no room to write; 0 while there is room.
    pub(super) blocked_since_us: AtomicU64,
    /// Whether the last bytes that moved came from the client.
    pub(super) request_pending: AtomicBool,
    /// Bytes that moved in the last seconds.
    pub(super) recent: RecentBytes,
    /// Whether it had no request yet.
    pub(super) is_new: AtomicBool,
    /// Whether its receive buffers are large.
    pub(super) has_large_buffers: AtomicBool,
    pub(super) eviction: AtomicU8,
    pub(super) wake: Notify,
}

/// When an evicted connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in crate::transport) enum Eviction {
    /// Once no request is active.
    WhenIdle = 1,
    /// At once.
    Now = 2,
}

impl SlotState {
    pub(super) fn new(peer: IpAddr, now_us: u64) -> Self {
        Self {
            peer,
            idle_since_us: AtomicU64::new(now_us),
            progress_us: AtomicU64::new(now_us),
            working: AtomicIsize::new(0),
            blocked_since_us: AtomicU64::new(0),
            request_pending: AtomicBool::new(false),
            recent: RecentBytes::default(),
            is_new: AtomicBool::new(true),
            has_large_buffers: AtomicBool::new(false),
            eviction: AtomicU8::new(0),
            wake: Notify::new(),
        }
    }

    /// Returns whether its slot will be free soon.
    pub(super) fn is_leaving(&self) -> bool {
        match self.eviction.load(Ordering::Relaxed) {
            0 => false,
            how => how >= Eviction::Now as u8 || self.is_idle(),
        }
    }

    /// Returns whether no request is active and nothing waits for room to be written, such as the head of an answer.
    pub(super) fn is_idle(&self) -> bool {
        let none_active = self.idle_since_us.load(Ordering::Relaxed) != BUSY;
        none_active && self.blocked_since_us.load(Ordering::Relaxed) == 0
    }

    pub(super) fn is_working(&self) -> bool {
        self.working.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Relaxed)
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.eviction.load(Ordering::Relaxed) > 0
    }

    pub(super) fn evict(&self, how: Eviction) {
        self.eviction.fetch_max(how as u8, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

pub(super) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(BUSY - 1)
}
