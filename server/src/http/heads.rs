//! Memory for the heads of requests under way.
//!
//! Owns: [`Heads`]. A connection of HTTP/2 has many requests at a time, each with a head of up to 64 KiB and a task; while their bodies do
//! not come, or their answers are not taken, these stay. So a connection has a small part for all of them, and what is beyond counts
//! against what all connections share. That is apart from the memory for bodies, so that pushes never cost anybody a request.
//! Refuses: the size of one head, which hyper bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a connection may have before it counts. One head is always taken.
const FREE_BYTES: usize = 128 << 10;
/// For what is beyond that, all connections of a listener together.
const SHARED_BYTES: usize = 64 << 20;
/// About what a request takes beside its head.
const REQUEST_BYTES: usize = 8 << 10;
/// What a field takes beside its name and value (RFC 9113 section 6.5.2 counts the same).
const FIELD_BYTES: usize = 32;

/// Of one connection.
#[derive(Debug, Clone)]
pub(super) struct Heads {
    bytes: Arc<AtomicUsize>,
    shared: Arc<Semaphore>,
}

/// One head, until it drops.
#[derive(Debug)]
pub(super) struct HeldHead {
    heads: Heads,
    bytes: usize,
    #[expect(dead_code, reason = "held for its drop")]
    beyond: Option<OwnedSemaphorePermit>,
}

/// What all connections of a listener share.
pub(super) fn shared() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(SHARED_BYTES))
}

impl Heads {
    pub(super) fn new(shared: &Arc<Semaphore>) -> Self {
        Self {
            bytes: Arc::default(),
            shared: Arc::clone(shared),
        }
    }

    /// Counts a request's head; `None` if there is no memory for it.
    pub(super) fn hold<B>(&self, request: &Request<B>) -> Option<HeldHead> {
        let bytes = size(request);
        let before = self.bytes.load(Ordering::Relaxed);
        let beyond = if before == 0 || before + bytes <= FREE_BYTES {
            None
        } else {
            let shared = Arc::clone(&self.shared);
            Some(
                shared
                    .try_acquire_many_owned(u32::try_from(bytes).ok()?)
                    .ok()?,
            )
        };
        // Requests of a connection begin one after the other.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(HeldHead {
            heads: self.clone(),
            bytes,
            beyond,
        })
    }
}

impl Drop for HeldHead {
    fn drop(&mut self) {
        self.heads.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn size<B>(request: &Request<B>) -> usize {
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES);
    let target = request.uri().path_and_query();
    REQUEST_BYTES + fields.sum::<usize>() + target.map_or(0, |target| target.as_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: usize) -> Request<()> {
        let builder = Request::get("/").header("x", "a".repeat(bytes - REQUEST_BYTES));
        builder.body(()).expect("a request")
    }

    /// Guards: many large heads of one connection count against what all share, and are refused once that is used; a connection's first
    /// and small ones never are; what ends gives its memory back.
    #[test]
    fn heads_are_counted() {
        let shared = shared();
        let (one, other) = (Heads::new(&shared), Heads::new(&shared));
        let first = one.hold(&request(100_000)).expect("the first");
        let beyond = one.hold(&request(60_000)).expect("there is memory");
        let all = u32::try_from(SHARED_BYTES - 100_000).expect("32 bits");
        let taken = shared.try_acquire_many(all).expect("there is memory");
        assert!(one.hold(&request(60_000)).is_none());
        let _others = other.hold(&request(200_000)).expect("its first");
        let third = Heads::new(&shared);
        let small: Vec<_> = (0..10).map(|_| third.hold(&request(10_000))).collect();
        assert!(small.iter().all(Option::is_some), "small ones");
        drop(beyond);
        assert!(one.hold(&request(60_000)).is_some());
        drop(taken);
        drop(first);
        assert_eq!(one.bytes.load(Ordering::Relaxed), 0);
    }
}
