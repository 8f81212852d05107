//! The limit on unsent bytes of an answer in the kernel.
//!
//! Owns: [`UnsentLimit`]. With a low limit the server soon detects that a client reads nothing, and a disconnected
//! client leaves little in the kernel. But it costs a wake-up for every half of it, which slows a fast client. So a
//! connection begins with a low limit. It has a high one while its client reads much without pauses, if the shared
//! budget has room.
//! Refuses: bytes that are sent but not acknowledged, which the system limits (`tcp_wmem`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::shared_budget::{BudgetShare, SharedBudget};
use super::stream::Stream;

/// Limit for a client that is not known to be fast. The socket becomes writable once half of it is sent.
const SLOW_CLIENT_BYTES: u32 = 256 << 10;
/// Limit for a fast client: one window.
const FAST_CLIENT_BYTES: u32 = 1 << 20;
/// Budget of all fast clients of a listener, for the part of their limits above that of the others.
pub(super) const SHARED_BYTES: usize = 256 << 20;
/// A client that reads this many bytes without a pause is fast.
const FAST_FROM_BYTES: u64 = 8 << 20;
/// A write that waits this long for room is a pause: the client read less than half of the limit meanwhile, or 1.2
/// MiB/s. For a fast client, whose limit is four times as high, it is four times as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const FAST_PAUSE_MIN: Duration = Duration::from_millis(400);
/// Most bytes of a write after a pause, so that the next progress of the client is detected soon.
const AFTER_PAUSE_BYTES: usize = 16 << 10;

/// The limit of one connection.
#[derive(Debug)]
pub(super) struct UnsentLimit {
    shared: Arc<SharedBudget>,
    peer: IpAddr,
    /// Bytes written since the last pause.
    since_pause: u64,
    /// The share of a fast client.
    fast: Option<BudgetShare>,
}

impl UnsentLimit {
    /// Sets the limit of a new connection.
    pub(super) fn new(shared: &Arc<SharedBudget>, peer: IpAddr, stream: &impl Stream) -> Self {
        set(stream, SLOW_CLIENT_BYTES);
        Self {
            shared: Arc::clone(shared),
            peer,
            since_pause: 0,
            fast: None,
        }
    }

    /// Returns the most bytes of a write that waited for room for `pause`.
    pub(super) fn write_max(&self, pause: Duration) -> usize {
        if self.fast.is_some() && pause >= FAST_PAUSE_MIN {
            AFTER_PAUSE_BYTES
        } else {
            usize::MAX
        }
    }

    /// Returns whether the client is fast.
    pub(super) fn is_fast(&self) -> bool {
        self.fast.is_some()
    }

    /// Records a write of `bytes` that waited for room for `pause`.
    pub(super) fn record_written(&mut self, stream: &impl Stream, bytes: usize, pause: Duration) {
        if let Some(bytes) = self.change(bytes, pause) {
            set(stream, bytes);
        }
    }

    /// Returns the new limit, if it changed.
    fn change(&mut self, bytes: usize, pause: Duration) -> Option<u32> {
        let pause_min = if self.fast.is_some() {
            FAST_PAUSE_MIN
        } else {
            PAUSE_MIN
        };
        if pause >= pause_min {
            self.since_pause = 0;
            return self.fast.take().map(|_| SLOW_CLIENT_BYTES);
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.since_pause = self.since_pause.saturating_add(bytes);
        if self.fast.is_some() || self.since_pause < FAST_FROM_BYTES {
            return None;
        }
        // Without room in the budget, the next attempt is after as many bytes.
        self.since_pause = 0;
        let beyond = usize::try_from(FAST_CLIENT_BYTES - SLOW_CLIENT_BYTES).unwrap_or(usize::MAX);
        self.fast = self.shared.take(self.peer, beyond);
        self.fast.as_ref().map(|_| FAST_CLIENT_BYTES)
    }
}

fn set(stream: &impl Stream, bytes: u32) {
    if let Err(error) = stream.set_unsent_max(bytes) {
        tracing::debug!(%error, "the limit on unsent bytes could not be set; continuing without it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a client that reads much has the high limit while the budget has room, and the low one once it pauses.
    /// Then a write is short, so that the next progress is detected soon.
    #[test]
    fn a_client_is_fast_until_it_pauses() {
        let shared = SharedBudget::new(2 * usize::try_from(FAST_CLIENT_BYTES).unwrap());
        let client = || UnsentLimit {
            shared: Arc::clone(&shared),
            peer: IpAddr::from([10, 0, 0, 1]),
            since_pause: 0,
            fast: None,
        };
        let half = usize::try_from(FAST_FROM_BYTES / 2).unwrap();
        let (mut one, mut two) = (client(), client());
        assert_eq!(one.change(half, Duration::ZERO), None);
        assert_eq!(one.change(half, PAUSE_MIN), None);
        assert_eq!(one.change(half, Duration::ZERO), None);
        assert_eq!(one.change(half, PAUSE_MIN / 2), Some(FAST_CLIENT_BYTES));
        assert_eq!(two.change(2 * half, Duration::ZERO), None, "none is left");
        assert_eq!(one.change(half, FAST_PAUSE_MIN / 2), None);
        assert_eq!(one.write_max(FAST_PAUSE_MIN / 2), usize::MAX);
        assert_eq!(one.write_max(FAST_PAUSE_MIN), AFTER_PAUSE_BYTES);
        assert_eq!(one.change(1, FAST_PAUSE_MIN), Some(SLOW_CLIENT_BYTES));
        assert_eq!(one.write_max(FAST_PAUSE_MIN), usize::MAX);
        assert_eq!(
            two.change(2 * half, Duration::ZERO),
            Some(FAST_CLIENT_BYTES)
        );
    }
}
