//! The memory of active requests, without their bodies and answers.
//!
//! Owns: [`RequestMemory`]. An HTTP/2 connection has many requests at a time. Each has a head of up to 64 KiB, a task,
//! and one buffered frame of its body. So each connection may hold a small amount; the rest counts against a budget of
//! all connections, with a limit for each address (`shared_budget`). That budget is separate from the memory for
//! bodies, so pushes never use up the memory that requests need.
//! Refuses: the size of one head, which hyper limits.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Version};
use http_body::Body;

use super::frames::PAYLOAD_BYTES_MAX;
use super::shared_budget::{BudgetShare, SharedBudget};

/// Bytes that a connection may hold without the budget. One request is always accepted.
const FREE_BYTES: usize = 128 << 10;
/// Budget for the rest, for all connections of a listener together.
pub(super) const SHARED_BYTES: usize = 64 << 20;
/// Estimate of the memory of a request without its head, in bytes.
const REQUEST_BYTES: usize = 8 << 10;
/// Overhead of a header field (RFC 9113 section 6.5.2 counts the same).
const FIELD_BYTES: usize = 32;

/// The memory of the requests of one connection.
#[derive(Debug, Clone)]
pub(super) struct RequestMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: AtomicUsize,
    budget: Arc<SharedBudget>,
    peer: IpAddr,
}

/// The memory of one request, until it is dropped.
#[derive(Debug)]
pub(super) struct HeldRequest {
    memory: RequestMemory,
    bytes: usize,
    #[expect(dead_code, reason = "held for its drop")]
    beyond: Option<BudgetShare>,
}

impl RequestMemory {
    pub(super) fn new(budget: &Arc<SharedBudget>, peer: IpAddr) -> Self {
        Self(Arc::new(Shared {
            bytes: AtomicUsize::new(0),
            budget: Arc::clone(budget),
            peer,
        }))
    }

    /// Reserves memory for a request. Returns `None` if there is none.
    pub(super) fn hold<B: Body>(&self, request: &Request<B>) -> Option<HeldRequest> {
        let bytes = size(request);
        let Shared {
            bytes: held,
            budget,
            peer,
        } = &*self.0;
        let before = held.load(Ordering::Relaxed);
        let beyond = if before == 0 || before + bytes <= FREE_BYTES {
            None
        } else {
            Some(budget.take(*peer, bytes)?)
        };
        // Requests of a connection begin one at a time, so the sum did not change since the load.
        held.fetch_add(bytes, Ordering::Relaxed);
        Some(HeldRequest {
            memory: self.clone(),
            bytes,
            beyond,
        })
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        self.memory.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn size<B: Body>(request: &Request<B>) -> usize {
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES);
    let target = request.uri().path_and_query();
    let target = target.map_or(0, |target| target.as_str().len());
    // On HTTP/1.1 there is one body at a time, and its buffer belongs to the connection.
    let has_frames = request.version() == Version::HTTP_2 && !request.body().is_end_stream();
    let frame = if has_frames { PAYLOAD_BYTES_MAX } else { 0 };
    REQUEST_BYTES + fields.sum::<usize>() + target + usize::try_from(frame).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn request(bytes: usize, body: &'static str) -> Request<Full<&'static [u8]>> {
        let builder = Request::post("/").version(Version::HTTP_2);
        let builder = builder.header("x", "a".repeat(bytes - REQUEST_BYTES));
        builder.body(Full::new(body.as_bytes())).expect("a request")
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Guards: many large heads of one address count against the shared budget, and are rejected once the address has
    /// its share. Those of other addresses are accepted, and so are the first and the small ones of a connection. A
    /// request that ends releases its memory.
    #[test]
    fn heads_are_counted() {
        let shared = SharedBudget::new(SHARED_BYTES);
        let one = RequestMemory::new(&shared, peer(1));
        let first = one.hold(&request(100_000, "")).expect("the first");
        let holding = std::iter::from_fn(|| one.hold(&request(60_000, "")));
        let mut beyond: Vec<_> = holding.take(SHARED_BYTES / 60_000).collect();
        assert!((500..600).contains(&beyond.len()), "{}", beyond.len());
        let same = RequestMemory::new(&shared, peer(1));
        let _first = same.hold(&request(200_000, "")).expect("its first");
        assert!(same.hold(&request(60_000, "")).is_none());
        let other = RequestMemory::new(&shared, peer(2));
        let _first = other.hold(&request(200_000, "")).expect("its first");
        assert!(other.hold(&request(60_000, "")).is_some());
        let third = RequestMemory::new(&shared, peer(1));
        let small: Vec<_> = (0..10).map(|_| third.hold(&request(10_000, ""))).collect();
        assert!(small.iter().all(Option::is_some), "small ones");
        drop(beyond.pop());
        assert!(one.hold(&request(60_000, "")).is_some());
        drop((first, beyond));
        assert_eq!(one.0.bytes.load(Ordering::Relaxed), 0);
    }

    /// Guards: the buffered frame of a body on HTTP/2 is counted for each stream, so many streams of a connection stay
    /// within its part and its share of the budget.
    #[test]
    fn a_frame_of_each_body_is_counted() {
        let shared = SharedBudget::new(0);
        let heads = RequestMemory::new(&shared, peer(1));
        let count = |body| {
            let holding = std::iter::from_fn(|| heads.hold(&request(REQUEST_BYTES, body)));
            holding.take(100).collect::<Vec<_>>().len()
        };
        assert_eq!(count(""), 15);
        assert_eq!(count("a"), 5);
    }
}
