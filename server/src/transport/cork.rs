//! Full segments for answers that continue.
//!
//! Owns: [`Cork`] (`TCP_CORK`) and [`Continuation`]. Each write of a window would otherwise end with a segment that is
//! not full. While the rest of an answer is at hand, that segment waits for it, so that only full ones are sent. Once
//! the server waits for the disk, and at the end of the answer, everything is sent at once.
//! Refuses: HTTP/2, where an answer that continues may be kept back by its client while others wait for their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::stream::Stream;

/// Smallest write that begins to hold back. Smaller answers are written at once, so they need no system call for this.
const FROM_BYTES: usize = 64 << 10;

/// Whether the answer of a connection continues at once after what its body has returned. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Continuation(Arc<AtomicBool>);

impl Continuation {
    /// Records whether more is at hand.
    pub(super) fn set(&self, continues: bool) {
        self.0.store(continues, Ordering::Relaxed);
    }

    /// Returns whether more is at hand.
    pub(super) fn continues(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether the kernel holds back a segment that is not full.
#[derive(Debug)]
pub(super) struct Cork {
    continuation: Continuation,
    is_set: bool,
}

impl Cork {
    /// Makes the cork of a connection whose answers set `continuation`.
    pub(super) fn new(continuation: Continuation) -> Self {
        Self {
            continuation,
            is_set: false,
        }
    }

    /// Prepares a write of `bytes`.
    pub(super) fn before_write(&mut self, stream: &impl Stream, bytes: usize) {
        if !self.is_set && bytes >= FROM_BYTES && self.continuation.continues() {
            self.is_set = set(stream, true);
        }
    }

    /// Sends what is held back, unless the answer continues.
    pub(super) fn after_flush(&mut self, stream: &impl Stream) {
        if self.is_set && !self.continuation.continues() {
            set(stream, false);
            self.is_set = false;
        }
    }
}

/// Returns whether it was set.
fn set(stream: &impl Stream, corked: bool) -> bool {
    let outcome = stream.set_corked(corked);
    if let Err(error) = &outcome {
        // The kernel sends what it holds back after 200 ms in any case.
        tracing::debug!(%error, "TCP_CORK could not be changed; continuing without it");
    }
    outcome.is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Returns a stream whose cork can be asked for, and its peer.
    fn pair() -> (tokio::net::TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (tokio::net::TcpStream::from_std(stream).unwrap(), peer)
    }

    /// Guards: a segment is held back only while an answer continues, and after that it is sent at once.
    #[tokio::test]
    async fn held_back_only_while_an_answer_continues() {
        let (stream, _peer) = pair();
        let corked =
            |stream: &tokio::net::TcpStream| socket2::SockRef::from(stream).tcp_cork().unwrap();
        let continuation = Continuation::default();
        let mut cork = Cork::new(continuation.clone());
        cork.before_write(&stream, FROM_BYTES);
        assert!(!corked(&stream), "nothing follows");
        continuation.set(true);
        cork.before_write(&stream, FROM_BYTES - 1);
        assert!(!corked(&stream), "a small answer");
        cork.before_write(&stream, FROM_BYTES);
        cork.after_flush(&stream);
        assert!(corked(&stream));
        continuation.set(false);
        cork.after_flush(&stream);
        assert!(!corked(&stream));
    }
}
