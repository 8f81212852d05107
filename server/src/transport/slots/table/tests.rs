//! Tests of which connections are evicted for new ones.

use futures_util::FutureExt as _;

use super::super::eviction::{EXCESS_SILENT_MIN, SILENT_MIN};
use super::super::queue::STALL_MIN;
use super::super::slot::GRACE;
use super::*;
use crate::clock::pass;

fn slots(max: usize) -> Arc<Slots> {
    Slots::new(max, &RunningClock::start())
}

impl Slots {
    /// Returns a slot for a connection that arrives now and finds no others waiting.
    pub(in crate::transport) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let mut queue = WaitingQueue::new(1);
        self.enqueue(&mut queue, peer, ());
        self.served(&mut queue)
    }

    /// Returns a slot for one of `queue`, long after the last plan.
    fn served(self: &Arc<Self>, queue: &mut WaitingQueue<()>) -> Option<Slot> {
        self.table.lock().planned_us = None;
        match self.decide(queue)? {
            Decision::Serve((), taken) => Some(taken),
            Decision::Close(()) => panic!("it is closed"),
        }
    }
}

fn peer(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// Returns the numbers of the evicted connections, in their order.
fn evicted(taken: &[Slot]) -> Vec<(usize, Eviction)> {
    let evicted = taken.iter().map(|taken| taken.evicted().now_or_never());
    evicted
        .enumerate()
        .filter_map(|(number, leave)| Some((number, leave?)))
        .collect()
}

/// Guards: when all slots are taken, the longest idle connection is evicted, one at a time if there are few. A busy one
/// is evicted only after no bytes moved on it and the server did not work on it for long enough.
#[tokio::test(start_paused = true)]
async fn the_longest_idle_is_evicted_first() {
    let slots = slots(3);
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(slots.take(peer(1)).expect("a slot"));
        pass(Duration::from_secs(1)).await;
    }
    taken[0].set_idle(false);
    assert!(evicted(&taken).is_empty(), "there was room");
    assert!(slots.take(peer(1)).is_none());
    assert_eq!(evicted(&taken), [(1, Eviction::WhenIdle)]);
    assert!(slots.take(peer(1)).is_none());
    assert_eq!(evicted(&taken), [], "one is leaving");
    drop(taken.remove(1));
    taken.push(slots.take(peer(1)).expect("its slot"));
    for taken in &taken {
        taken.set_idle(false);
    }
    assert!(slots.take(peer(1)).is_none());
    assert_eq!(evicted(&taken), [], "all are busy");
    taken[0].start_work();
    pass(SILENT_MIN).await;
    taken[1].record_progress(1);
    assert!(slots.take(peer(1)).is_none());
    assert_eq!(evicted(&taken), [(2, Eviction::Now)]);
}

/// Guards: a connection that was just accepted has GRACE for its first request. Then it is evicted in its order, and
/// none that was idle for less time is evicted before it.
#[tokio::test(start_paused = true)]
async fn new_connections_have_a_grace_period() {
    let slots = slots(2);
    let taken = [slots.take(peer(1)).unwrap(), slots.take(peer(1)).unwrap()];
    taken[1].set_idle(false);
    pass(GRACE / 2).await;
    taken[1].set_idle(true);
    assert!(slots.take(peer(2)).is_none());
    assert_eq!(evicted(&taken), []);
    pass(GRACE).await;
    assert!(slots.take(peer(2)).is_none());
    assert_eq!(evicted(&taken), [(0, Eviction::WhenIdle)]);
}

/// Guards: new connections of an address that has more than its share do not keep the slots of others that have been
/// idle for longer.
#[tokio::test(start_paused = true)]
async fn new_connections_do_not_protect_others() {
    let slots = slots(4);
    let mut taken = vec![slots.take(peer(2)).unwrap()];
    pass(GRACE * 2).await;
    taken.extend((0..3).map(|_| slots.take(peer(1)).unwrap()));
    assert!(slots.take(peer(3)).is_none());
    assert_eq!(evicted(&taken), [(0, Eviction::WhenIdle)]);
}

/// Guards: a connection that is not idle stays while an idle one ends, and while a new one may become evictable.
#[tokio::test(start_paused = true)]
async fn only_idle_connections_are_evicted() {
    let slots = slots(128);
    let mut taken: Vec<_> = (0..126).map(|_| slots.take(peer(2)).unwrap()).collect();
    for taken in &taken {
        taken.set_idle(false);
    }
    pass(SILENT_MIN).await;
    taken.extend([(); 2].map(|()| slots.take(peer(1)).unwrap()));
    assert!(slots.take(peer(3)).is_none());
    assert_eq!(evicted(&taken), [], "they are new");
    taken[127].set_idle(false);
    pass(GRACE).await;
    assert!(slots.take(peer(3)).is_none());
    assert_eq!(evicted(&taken), [(126, Eviction::WhenIdle)]);
}

/// Guards: a connection that needs large receive buffers gets those of one that has been idle for long enough; if its
/// address has some already, of one of that address.
#[tokio::test(start_paused = true)]
async fn idle_connections_release_large_buffers() {
    let slots = slots(9);
    let taken = [(); 4].map(|()| slots.take(peer(1)).expect("a slot"));
    for taken in &taken[..3] {
        taken.set_large_buffers();
    }
    taken[0].set_idle(false);
    pass(LARGE_IDLE_MIN + Duration::from_secs(1)).await;
    taken[2].set_idle(true);
    let newcomer = slots.take(peer(2)).expect("a slot");
    newcomer.set_large_buffers();
    newcomer.set_idle(false);
    newcomer.request_large_buffers();
    assert_eq!(evicted(&taken), [], "its address has some");
    taken[3].request_large_buffers();
    assert_eq!(evicted(&taken), [(1, Eviction::WhenIdle)]);
    drop(newcomer);
    pass(LARGE_IDLE_MIN + Duration::from_secs(1)).await;
    slots.take(peer(2)).expect("a slot").request_large_buffers();
    assert_eq!(evicted(&taken), [(2, Eviction::WhenIdle)], "it has none");
}

/// Guards: an evicted connection that received a request since keeps its slot, and another is evicted; not before the
/// next plan, however many connections arrive.
#[tokio::test(start_paused = true)]
async fn a_connection_with_a_new_request_stays() {
    let slots = slots(2);
    let taken = [slots.take(peer(1)).unwrap(), slots.take(peer(1)).unwrap()];
    pass(GRACE * 2).await;
    assert!(slots.take(peer(1)).is_none());
    let (first, _) = evicted(&taken)[0];
    taken[first].set_idle(false);
    let mut queue = WaitingQueue::new(8);
    slots.enqueue(&mut queue, peer(1), ());
    assert!(slots.decide(&mut queue).is_none());
    assert_eq!(evicted(&taken), [], "it was looked a moment ago");
    pass(Duration::from_millis(200)).await;
    assert!(slots.decide(&mut queue).is_none());
    assert_eq!(evicted(&taken), [(1 - first, Eviction::WhenIdle)]);
}

/// Guards: an address with more than its share loses connections to others, even if bytes move, and never to itself:
/// first one after its request. After GRACE the one that moved the fewest bytes is closed, and none of addresses with
/// less.
#[tokio::test(start_paused = true)]
async fn addresses_have_a_share() {
    let slots = slots(8);
    let mut taken = vec![slots.take(peer(2)).unwrap()];
    pass(Duration::from_secs(1)).await;
    taken.extend((0..7).map(|_| slots.take(peer(1)).unwrap()));
    for taken in &taken[1..] {
        taken.set_idle(false);
    }
    taken[7].set_idle(true);
    assert!(slots.take(peer(2)).is_none());
    assert_eq!(
        evicted(&taken),
        [(7, Eviction::WhenIdle)],
        "idle, and over its share"
    );
    taken.pop();
    taken.push(slots.take(peer(1)).unwrap());
    for taken in &taken {
        taken.set_idle(false);
    }
    assert!(slots.take(peer(1)).is_none());
    assert_eq!(evicted(&taken), [], "it has its share");
    let mut queue = WaitingQueue::new(8);
    slots.enqueue(&mut queue, peer(3), ());
    assert!(slots.served(&mut queue).is_none());
    let first = evicted(&taken);
    assert!(
        matches!(first[..], [(1..=7, Eviction::WhenIdle)]),
        "{first:?}"
    );
    assert!(slots.served(&mut queue).is_none());
    assert_eq!(evicted(&taken), [], "one is enough for one");
    pass(GRACE).await;
    for (number, taken) in taken.iter().enumerate() {
        taken.record_progress(if number == 4 { 100 } else { 1000 });
    }
    taken[0].record_progress(0);
    assert!(slots.served(&mut queue).is_none());
    assert_eq!(evicted(&taken), [(4, Eviction::Now)]);
    assert!(slots.served(&mut queue).is_none());
    assert_eq!(evicted(&taken), [], "one is leaving");
    taken.remove(4);
    let third = slots.served(&mut queue).expect("its slot");
    assert_eq!(third.peer(), peer(3));
}

/// Guards: for an entitled connection, a silent one of an address with more than its share is evicted soon, and a new
/// one does not protect the others. For a connection of an address at its share, no request of an address with less is
/// ended.
#[tokio::test(start_paused = true)]
async fn silent_connections_over_their_share_end_sooner() {
    let slots = slots(4);
    let mut taken = vec![slots.take(peer(2)).unwrap()];
    taken.extend((0..3).map(|_| slots.take(peer(1)).unwrap()));
    for taken in &taken {
        taken.set_idle(false);
    }
    taken[2].start_work();
    pass(EXCESS_SILENT_MIN).await;
    taken[3].record_progress(1);
    assert!(slots.take(peer(3)).is_none());
    assert_eq!(evicted(&taken), [(1, Eviction::Now)]);
    drop(taken.remove(1));
    taken.push(slots.take(peer(1)).expect("its slot"));
    taken[3].set_idle(false);
    taken[0].set_idle(false);
    pass(SILENT_MIN).await;
    taken[2].record_progress(1);
    taken[3].record_progress(1);
    assert!(slots.take(peer(1)).is_none());
    assert_eq!(evicted(&taken), [], "of another address, with its share");
    assert!(slots.take(peer(2)).is_none());
    assert_eq!(evicted(&taken), [(0, Eviction::Now)], "of its own");
}

/// Guards: a waiting connection does not block later ones: an address at its share waits, one with less is served
/// first. Beyond the queue, the last connection of the address with the most waiting is closed.
#[tokio::test(start_paused = true)]
async fn waiting_connections_do_not_block_others() {
    let slots = slots(8);
    let mut taken: Vec<_> = (0..8).map(|_| slots.take(peer(1)).unwrap()).collect();
    for taken in &taken {
        taken.set_idle(false);
    }
    let mut queue = WaitingQueue::new(8);
    for number in 0..3 {
        assert!(queue.has_room());
        slots.enqueue(&mut queue, peer(1), number);
    }
    assert!(!queue.has_room());
    assert!(slots.decide(&mut queue).is_none(), "the queue may move");
    pass(STALL_MIN * 2).await;
    assert!(matches!(slots.decide(&mut queue), Some(Decision::Close(2))));
    assert!(slots.decide(&mut queue).is_none());
    slots.enqueue(&mut queue, peer(2), 3);
    assert!(matches!(slots.decide(&mut queue), Some(Decision::Close(1))));
    slots.enqueue(&mut queue, peer(3), 4);
    assert!(matches!(slots.decide(&mut queue), Some(Decision::Close(0))));
    taken.pop();
    let Some(Decision::Serve(3, second)) = slots.decide(&mut queue) else {
        panic!("the first of those that are entitled is served");
    };
    assert_eq!(second.peer(), peer(2));
}

/// Guards: all addresses of one IPv6 network have one share, and an IPv4 address counts the same on an IPv6 socket.
#[test]
fn one_client_has_one_share() {
    let address = |text: &str| client_address(text.parse().expect("an address"));
    assert_eq!(address("2001:db8::1"), address("2001:db8::2:3"));
    assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
    assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
}
