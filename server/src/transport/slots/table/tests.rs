//! Which connections leave for a newcomer.

use futures_util::FutureExt as _;

use super::super::eviction::{EXCESS_SILENT_MIN, SILENT_MIN};
use super::super::queue::PACE;
use super::super::slot::GRACE;
use super::*;
use crate::clock::pass;

fn places(max: usize) -> Arc<Places> {
    Places::new(max, &RunningClock::start())
}

impl Places {
    /// A place for one that comes now and finds no others waiting.
    pub(in crate::transport) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Taken> {
        let mut line = Line::new(1);
        self.arrive(&mut line, peer, ());
        self.served(&mut line)
    }

    /// A place for one of `line`, where the last look was a while ago.
    fn served(self: &Arc<Self>, line: &mut Line<()>) -> Option<Taken> {
        self.table.lock().looked_us = None;
        match self.next(line)? {
            Next::Serve((), taken) => Some(taken),
            Next::Close(()) => panic!("it is closed"),
        }
    }
}

fn peer(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// The numbers of the connections that were told to leave, in their order.
fn told(taken: &[Taken]) -> Vec<(usize, Leave)> {
    let told = taken.iter().map(|taken| taken.told().now_or_never());
    told.enumerate()
        .filter_map(|(number, leave)| Some((number, leave?)))
        .collect()
}

/// Guards: when all places are taken the longest idle connection leaves, one at a time where there are few; a busy one does not
/// while bytes move on it or the server works for it, and does once they have not for long enough.
#[tokio::test(start_paused = true)]
async fn the_longest_idle_leaves_first() {
    let places = places(3);
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(places.take(peer(1)).expect("a place"));
        pass(Duration::from_secs(1)).await;
    }
    taken[0].set_idle(false);
    assert!(told(&taken).is_empty(), "there was room");
    assert!(places.take(peer(1)).is_none());
    assert_eq!(told(&taken), [(1, Leave::WhenIdle)]);
    assert!(places.take(peer(1)).is_none());
    assert_eq!(told(&taken), [], "one is leaving");
    drop(taken.remove(1));
    taken.push(places.take(peer(1)).expect("its place"));
    for taken in &taken {
        taken.set_idle(false);
    }
    assert!(places.take(peer(1)).is_none());
    assert_eq!(told(&taken), [], "all are busy");
    taken[0].work_begins();
    pass(SILENT_MIN).await;
    taken[1].moved(1);
    assert!(places.take(peer(1)).is_none());
    assert_eq!(told(&taken), [(2, Leave::Now)]);
}

/// Guards: a connection that was just accepted has a moment for its first request, though another wants its
/// place; it leaves in its order after that, and no other that was idle for less time leaves before it.
#[tokio::test(start_paused = true)]
async fn new_connections_have_a_moment() {
    let places = places(2);
    let taken = [places.take(peer(1)).unwrap(), places.take(peer(1)).unwrap()];
    taken[1].set_idle(false);
    pass(GRACE / 2).await;
    taken[1].set_idle(true);
    assert!(places.take(peer(2)).is_none());
    assert_eq!(told(&taken), []);
    pass(GRACE).await;
    assert!(places.take(peer(2)).is_none());
    assert_eq!(told(&taken), [(0, Leave::WhenIdle)]);
}

/// Guards: new connections of an address that has more than its share do not keep the places of others that have been idle for longer.
#[tokio::test(start_paused = true)]
async fn new_connections_keep_no_others() {
    let places = places(4);
    let mut taken = vec![places.take(peer(2)).unwrap()];
    pass(GRACE * 2).await;
    taken.extend((0..3).map(|_| places.take(peer(1)).unwrap()));
    assert!(places.take(peer(3)).is_none());
    assert_eq!(told(&taken), [(0, Leave::WhenIdle)]);
}

/// Guards: one that is not idle stays while an idle one leaves, and while a new one may leave in a moment.
#[tokio::test(start_paused = true)]
async fn idle_connections_leave_alone() {
    let places = places(128);
    let mut taken: Vec<_> = (0..126).map(|_| places.take(peer(2)).unwrap()).collect();
    for taken in &taken {
        taken.set_idle(false);
    }
    pass(SILENT_MIN).await;
    taken.extend([(); 2].map(|()| places.take(peer(1)).unwrap()));
    assert!(places.take(peer(3)).is_none());
    assert_eq!(told(&taken), [], "they are new");
    taken[127].set_idle(false);
    pass(GRACE).await;
    assert!(places.take(peer(3)).is_none());
    assert_eq!(told(&taken), [(126, Leave::WhenIdle)]);
}

/// Guards: a connection that wants large receive buffers gets those of one that has been idle for a while, and of no
/// other; where its address has some already, of one of that address.
#[tokio::test(start_paused = true)]
async fn idle_connections_give_large_buffers_back() {
    let places = places(9);
    let taken = [(); 4].map(|()| places.take(peer(1)).expect("a place"));
    for taken in &taken[..3] {
        taken.set_wide();
    }
    taken[0].set_idle(false);
    pass(WIDE_IDLE_MIN + Duration::from_secs(1)).await;
    taken[2].set_idle(true);
    let newcomer = places.take(peer(2)).expect("a place");
    newcomer.set_wide();
    newcomer.set_idle(false);
    newcomer.want_wide();
    assert_eq!(told(&taken), [], "its address has some");
    taken[3].want_wide();
    assert_eq!(told(&taken), [(1, Leave::WhenIdle)]);
    drop(newcomer);
    pass(WIDE_IDLE_MIN).await;
    places.take(peer(2)).expect("a place").want_wide();
    assert_eq!(told(&taken), [(2, Leave::WhenIdle)], "it has none");
}

/// Guards: one that was told to leave and was asked something since keeps its place, and another leaves; not before the next look,
/// however many come meanwhile.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_asked_again_stays() {
    let places = places(2);
    let taken = [places.take(peer(1)).unwrap(), places.take(peer(1)).unwrap()];
    pass(GRACE * 2).await;
    assert!(places.take(peer(1)).is_none());
    let (first, _) = told(&taken)[0];
    taken[first].set_idle(false);
    let mut line = Line::new(8);
    places.arrive(&mut line, peer(1), ());
    assert!(places.next(&mut line).is_none());
    assert_eq!(told(&taken), [], "it was looked a moment ago");
    pass(Duration::from_millis(200)).await;
    assert!(places.next(&mut line).is_none());
    assert_eq!(told(&taken), [(1 - first, Leave::WhenIdle)]);
}

/// Guards: an address with more than its share loses connections to others, even where bytes move, and never to itself: first one after
/// its request; once another has waited for a moment the one is cut that moved the fewest bytes lately, and none of those with less.
#[tokio::test(start_paused = true)]
async fn addresses_have_a_share() {
    let places = places(8);
    let mut taken = vec![places.take(peer(2)).unwrap()];
    pass(Duration::from_secs(1)).await;
    taken.extend((0..7).map(|_| places.take(peer(1)).unwrap()));
    for taken in &taken[1..] {
        taken.set_idle(false);
    }
    taken[7].set_idle(true);
    assert!(places.take(peer(2)).is_none());
    assert_eq!(
        told(&taken),
        [(7, Leave::WhenIdle)],
        "idle, and over its share"
    );
    taken.pop();
    taken.push(places.take(peer(1)).unwrap());
    for taken in &taken {
        taken.set_idle(false);
    }
    assert!(places.take(peer(1)).is_none());
    assert_eq!(told(&taken), [], "it has its share");
    let mut line = Line::new(8);
    places.arrive(&mut line, peer(3), ());
    assert!(places.served(&mut line).is_none());
    let first = told(&taken);
    assert!(matches!(first[..], [(1..=7, Leave::WhenIdle)]), "{first:?}");
    assert!(places.served(&mut line).is_none());
    assert_eq!(told(&taken), [], "one is enough for one");
    pass(GRACE).await;
    for (number, taken) in taken.iter().enumerate() {
        taken.moved(if number == 4 { 100 } else { 1000 });
    }
    taken[0].moved(0);
    assert!(places.served(&mut line).is_none());
    assert_eq!(told(&taken), [(4, Leave::Now)]);
    assert!(places.served(&mut line).is_none());
    assert_eq!(told(&taken), [], "one is leaving");
    taken.remove(4);
    let third = places.served(&mut line).expect("its place");
    assert_eq!(third.peer(), peer(3));
}

/// Guards: for one that is entitled to a place a silent connection of an address with more than its share leaves after a moment, and one
/// that is new does not keep the others; for one of an address that has its share no request of others ends that have less.
#[tokio::test(start_paused = true)]
async fn silence_ends_sooner_where_there_are_too_many() {
    let places = places(4);
    let mut taken = vec![places.take(peer(2)).unwrap()];
    taken.extend((0..3).map(|_| places.take(peer(1)).unwrap()));
    for taken in &taken {
        taken.set_idle(false);
    }
    taken[2].work_begins();
    pass(EXCESS_SILENT_MIN).await;
    taken[3].moved(1);
    assert!(places.take(peer(3)).is_none());
    assert_eq!(told(&taken), [(1, Leave::Now)]);
    drop(taken.remove(1));
    taken.push(places.take(peer(1)).expect("its place"));
    taken[3].set_idle(false);
    taken[0].set_idle(false);
    pass(SILENT_MIN).await;
    taken[2].moved(1);
    taken[3].moved(1);
    assert!(places.take(peer(1)).is_none());
    assert_eq!(told(&taken), [], "of another address, with its share");
    assert!(places.take(peer(2)).is_none());
    assert_eq!(told(&taken), [(0, Leave::Now)], "of its own");
}

/// Guards: one that waits keeps nobody behind it from a place: an address that has its share waits, one that has less is served first,
/// and beyond the line the last of those is closed of which most wait.
#[tokio::test(start_paused = true)]
async fn the_line_is_no_obstacle() {
    let places = places(8);
    let mut taken: Vec<_> = (0..8).map(|_| places.take(peer(1)).unwrap()).collect();
    for taken in &taken {
        taken.set_idle(false);
    }
    let mut line = Line::new(8);
    for number in 0..3 {
        assert!(line.has_room());
        places.arrive(&mut line, peer(1), number);
    }
    assert!(!line.has_room());
    assert!(places.next(&mut line).is_none(), "the line may move");
    pass(PACE * 2).await;
    assert!(matches!(places.next(&mut line), Some(Next::Close(2))));
    assert!(places.next(&mut line).is_none());
    places.arrive(&mut line, peer(2), 3);
    assert!(matches!(places.next(&mut line), Some(Next::Close(1))));
    places.arrive(&mut line, peer(3), 4);
    assert!(matches!(places.next(&mut line), Some(Next::Close(0))));
    taken.pop();
    let Some(Next::Serve(3, second)) = places.next(&mut line) else {
        panic!("the first of those that are entitled is served");
    };
    assert_eq!(second.peer(), peer(2));
}

/// Guards: many addresses of one network of IPv6 have one share, and an address of IPv4 is the same one behind a socket of IPv6.
#[test]
fn one_client_has_one_share() {
    let address = |text: &str| client(text.parse().expect("an address"));
    assert_eq!(address("2001:db8::1"), address("2001:db8::2:3"));
    assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
    assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
}
