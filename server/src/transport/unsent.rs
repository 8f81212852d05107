//! How much of an answer the kernel may keep that is not on its way yet.
//!
//! Owns: [`Unsent`]. With little, the server sees soon that a client takes nothing, and a client that goes leaves little behind; the
//! price is a wake-up for every half of it, which a fast client feels. So a connection begins with little, and has more while its client
//! takes much without pauses, if there is some left of what all connections share.
//! Refuses: what is on its way, which the system bounds (`tcp_wmem`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::shared_budget::{Share, SharedBytes};
use super::stream::Stream;

/// What the kernel keeps for a client that is not known to be fast. It asks for more once half of that is gone.
const LITTLE_BYTES: u32 = 256 << 10;
/// The same for a fast one: a window.
const MUCH_BYTES: u32 = 1 << 20;
/// What all fast clients of a listener have beyond what the others have too.
pub(super) const SHARED_BYTES: usize = 256 << 20;
/// Taken without a pause, this makes a client fast.
const FAST_FROM_BYTES: u64 = 8 << 20;
/// A write that waits so long for room is a pause: the client took less than half of what the kernel keeps, 1.2 MiB/s. For a fast client,
/// of which that is four times as much, it is as much longer.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const FAST_PAUSE_MIN: Duration = Duration::from_millis(400);
/// What a write after a pause takes, so that the client is seen to take something again soon.
const AFTER_PAUSE_BYTES: usize = 16 << 10;

/// Of one connection.
#[derive(Debug)]
pub(super) struct Unsent {
    shared: Arc<SharedBytes>,
    peer: IpAddr,
    /// Bytes that the kernel took since the last pause.
    since_pause: u64,
    /// Of a fast client.
    much: Option<Share>,
}

impl Unsent {
    /// For a connection that begins.
    pub(super) fn new(shared: &Arc<SharedBytes>, peer: IpAddr, stream: &impl Stream) -> Self {
        set(stream, LITTLE_BYTES);
        Self {
            shared: Arc::clone(shared),
            peer,
            since_pause: 0,
            much: None,
        }
    }

    /// Most that a write may take which waited for room for `pause`.
    pub(super) fn most(&self, pause: Duration) -> usize {
        if self.much.is_some() && pause >= FAST_PAUSE_MIN {
            AFTER_PAUSE_BYTES
        } else {
            usize::MAX
        }
    }

    /// Notes that the kernel took `bytes` in a write that waited for room for `pause`.
    pub(super) fn taken(&mut self, stream: &impl Stream, bytes: usize, pause: Duration) {
        if let Some(bytes) = self.change(bytes, pause) {
            set(stream, bytes);
        }
    }

    /// What the kernel is to keep from now on, where that changed.
    fn change(&mut self, bytes: usize, pause: Duration) -> Option<u32> {
        let pause_min = if self.much.is_some() {
            FAST_PAUSE_MIN
        } else {
            PAUSE_MIN
        };
        if pause >= pause_min {
            self.since_pause = 0;
            return self.much.take().map(|_| LITTLE_BYTES);
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.since_pause = self.since_pause.saturating_add(bytes);
        if self.much.is_some() || self.since_pause < FAST_FROM_BYTES {
            return None;
        }
        // Where none is left it is asked for again after as many bytes.
        self.since_pause = 0;
        let beyond = usize::try_from(MUCH_BYTES - LITTLE_BYTES).unwrap_or(usize::MAX);
        self.much = self.shared.take(self.peer, beyond);
        self.much.as_ref().map(|_| MUCH_BYTES)
    }
}

fn set(stream: &impl Stream, bytes: u32) {
    if let Err(error) = stream.set_unsent_max(bytes) {
        tracing::debug!(%error, "the kernel may keep more or less of an answer than it should");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the kernel keeps much for a client that takes much, as long as there is some left, and little again once it pauses; then a
    /// write is short, so that the client is seen to take something soon.
    #[test]
    fn a_client_is_fast_until_it_pauses() {
        let shared = SharedBytes::new(2 * usize::try_from(MUCH_BYTES).unwrap());
        let client = || Unsent {
            shared: Arc::clone(&shared),
            peer: IpAddr::from([10, 0, 0, 1]),
            since_pause: 0,
            much: None,
        };
        let half = usize::try_from(FAST_FROM_BYTES / 2).unwrap();
        let (mut one, mut two) = (client(), client());
        assert_eq!(one.change(half, Duration::ZERO), None);
        assert_eq!(one.change(half, PAUSE_MIN), None);
        assert_eq!(one.change(half, Duration::ZERO), None);
        assert_eq!(one.change(half, PAUSE_MIN / 2), Some(MUCH_BYTES));
        assert_eq!(two.change(2 * half, Duration::ZERO), None, "none is left");
        assert_eq!(one.change(half, FAST_PAUSE_MIN / 2), None);
        assert_eq!(one.most(FAST_PAUSE_MIN / 2), usize::MAX);
        assert_eq!(one.most(FAST_PAUSE_MIN), AFTER_PAUSE_BYTES);
        assert_eq!(one.change(1, FAST_PAUSE_MIN), Some(LITTLE_BYTES));
        assert_eq!(one.most(FAST_PAUSE_MIN), usize::MAX);
        assert_eq!(two.change(2 * half, Duration::ZERO), Some(MUCH_BYTES));
    }
}
