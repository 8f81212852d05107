//! How much of an answer the kernel may keep that is not on its way yet.
//!
//! Owns: [`Unsent`]. With little, the server sees soon that a client takes nothing, and a client that goes leaves little behind; the
//! price is a wake-up for every half of it, which a fast client feels. So a connection begins with little, and has more while its client
//! takes much without pauses.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// What the kernel takes of a client that is not known to be fast. It asks for more once half of that is gone.
const LITTLE_BYTES: u32 = 256 << 10;
/// The same of a fast one: a window.
const MUCH_BYTES: u32 = 1 << 20;
/// Taken without a pause, this makes a client fast.
const FAST_FROM_BYTES: u64 = 8 << 20;
/// A client that takes nothing for so long pauses.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Of one connection.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    /// Bytes that were taken since the last pause.
    since_pause: u64,
    is_fast: bool,
}

impl Unsent {
    /// For a connection that begins.
    pub(super) fn new(stream: &TcpStream) -> Self {
        set(stream, LITTLE_BYTES);
        Self::default()
    }

    /// Notes that the client took `bytes` after it had taken nothing for `pause`.
    pub(super) fn taken(&mut self, stream: &TcpStream, bytes: usize, pause: Duration) {
        if let Some(is_fast) = self.change(bytes, pause) {
            set(stream, if is_fast { MUCH_BYTES } else { LITTLE_BYTES });
        }
    }

    /// Whether the client is fast now, where that changed.
    fn change(&mut self, bytes: usize, pause: Duration) -> Option<bool> {
        if pause >= PAUSE_MIN {
            self.since_pause = 0;
        }
        let is_fast = self.since_pause >= FAST_FROM_BYTES;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.since_pause = self.since_pause.saturating_add(bytes);
        let was_fast = std::mem::replace(&mut self.is_fast, is_fast);
        (was_fast != is_fast).then_some(is_fast)
    }
}

fn set(stream: &TcpStream, bytes: u32) {
    if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(bytes) {
        tracing::debug!(%error, "the kernel may keep more or less of an answer than it should");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the kernel keeps much for a client that takes much, and little again once it pauses.
    #[test]
    fn a_client_is_fast_until_it_pauses() {
        let mut unsent = Unsent::default();
        let half = usize::try_from(FAST_FROM_BYTES / 2).unwrap();
        let short = PAUSE_MIN / 2;
        assert_eq!(unsent.change(half, short), None);
        assert_eq!(unsent.change(half, PAUSE_MIN), None);
        assert_eq!(unsent.change(half, short), None);
        assert_eq!(unsent.change(1, short), Some(true));
        assert_eq!(unsent.change(1, Duration::ZERO), None);
        assert_eq!(unsent.change(half, PAUSE_MIN), Some(false));
        assert_eq!(unsent.change(half, Duration::ZERO), None);
    }
}
