//! Tests of shares of the budget, and of the choice of the client that is revoked.

use super::stalls::{Relief, SCAN_PAUSE};
use super::*;
use crate::memory::read_ahead::ReadAhead;

const K: usize = 1 << 10;
const STALL: Duration = Duration::from_secs(1);

/// Makes a budget of 1 MiB: 256 KiB reserved, a share of 64 KiB.
fn budget() -> Budget {
    Budget::new(1024 * K, 64 * K, STALL)
}

fn client(budget: &mut Budget) -> (Id, Arc<Signals>) {
    let signals = Arc::new(Signals::default());
    (budget.open(Arc::clone(&signals)), signals)
}

fn is_granted(asked: &mut Request) -> bool {
    let granted = asked.granted.as_mut();
    granted.is_none_or(|granted| granted.try_recv().is_ok())
}

fn send_all(granted: Vec<oneshot::Sender<()>>) {
    for grant in granted {
        grant.send(()).unwrap();
    }
}

/// Guards: bulk reads leave the reserve to small answers, however many there are; one account cannot have all of the
/// reserve.
#[test]
fn the_reserve_is_for_small_answers() {
    let mut budget = budget();
    for _ in 0..12 {
        let (id, _) = client(&mut budget);
        assert!(
            budget
                .ask(MemoryPriority::Bulk, Some(id), 64 * K)
                .granted
                .is_none()
        );
    }
    let (id, _) = client(&mut budget);
    let mut bulk = budget.ask(MemoryPriority::Bulk, Some(id), 64 * K);
    assert!(!is_granted(&mut bulk));
    assert!(
        budget
            .ask(MemoryPriority::Urgent, None, 16 * K)
            .granted
            .is_none()
    );
    let (greedy, _) = client(&mut budget);
    budget.share = 1024 * K;
    for _ in 0..3 {
        assert!(
            budget
                .ask(MemoryPriority::Urgent, Some(greedy), 64 * K)
                .granted
                .is_none()
        );
    }
    let (other, _) = client(&mut budget);
    let mut fifth = budget.ask(MemoryPriority::Urgent, Some(greedy), 128 * K);
    assert!(!is_granted(&mut fifth), "more than its part of the reserve");
    assert!(
        budget
            .ask(MemoryPriority::Urgent, Some(other), 16 * K)
            .granted
            .is_none()
    );
    send_all(budget.release(None, MemoryPriority::Urgent, 64 * K));
}

/// Guards: accounts that wait are served in turn, however much each requests. Reads without an account each have a
/// turn, and an account that was revoked is served after the others.
#[test]
fn accounts_take_turns() {
    let mut budget = budget();
    let ((greedy, _), (other, _)) = (client(&mut budget), client(&mut budget));
    assert!(
        budget
            .ask(MemoryPriority::Bulk, None, 768 * K)
            .granted
            .is_none()
    );
    let mut wait = |account| budget.ask(MemoryPriority::Bulk, account, 16 * K);
    let mut much = [wait(Some(greedy)), wait(Some(greedy)), wait(Some(greedy))];
    let mut little = [wait(Some(other)), wait(Some(other))];
    let mut own = [wait(None), wait(None)];
    send_all(budget.release(None, MemoryPriority::Bulk, 64 * K));
    assert!(is_granted(&mut much[0]) && is_granted(&mut little[0]));
    assert!(is_granted(&mut own[0]) && is_granted(&mut own[1]));
    assert!(!is_granted(&mut much[1]));
    assert!(budget.revoke(greedy, Duration::ZERO).is_some());
    send_all(budget.release(None, MemoryPriority::Bulk, 16 * K));
    assert!(is_granted(&mut little[1]) && !is_granted(&mut much[1]));
    send_all(budget.release(None, MemoryPriority::Bulk, 32 * K));
    assert!(is_granted(&mut much[1]) && is_granted(&mut much[2]));
}

/// Guards: beyond its share an account waits for its own bytes and delays no other; a waiter that goes makes room for
/// the next.
#[test]
fn waiters_are_served_in_turn() {
    let mut budget = budget();
    let ((one, _), (two, _)) = (client(&mut budget), client(&mut budget));
    assert!(
        budget
            .ask(MemoryPriority::Bulk, Some(one), 64 * K)
            .granted
            .is_none()
    );
    let mut parked = budget.ask(MemoryPriority::Bulk, Some(one), 64 * K);
    assert!(!is_granted(&mut parked));
    assert!(
        budget
            .ask(MemoryPriority::Bulk, Some(two), 64 * K)
            .granted
            .is_none()
    );
    send_all(budget.release(Some(one), MemoryPriority::Bulk, 64 * K));
    assert!(is_granted(&mut parked));
    assert!(
        budget
            .ask(MemoryPriority::Bulk, None, 640 * K)
            .granted
            .is_none()
    );
    let mut first = budget.ask(MemoryPriority::Bulk, None, 64 * K);
    let mut second = budget.ask(MemoryPriority::Bulk, None, 4 * K);
    assert!(!is_granted(&mut first) && !is_granted(&mut second));
    send_all(budget.withdraw(None, first.id).expect("it waited"));
    assert!(!is_granted(&mut second), "the reserve was used");
    send_all(budget.release(Some(two), MemoryPriority::Bulk, 64 * K));
    assert!(is_granted(&mut second));
    assert!(budget.withdraw(None, second.id).is_none());
}

/// A window that is read ahead, until it is given up.
#[derive(Debug)]
struct Slot(usize);

impl ReadAhead for Slot {
    fn bytes(&self) -> usize {
        self.0
    }
    fn give_up(&self) {}
}

/// Guards: nothing is read ahead that would wait for the account's own bytes, or that leaves less than half of the
/// budget to others. A wait for own bytes drops as much read-ahead as it needs, the newest first.
#[test]
fn read_ahead_has_room_within_share_and_half_of_the_budget() {
    let mut budget = budget();
    let (account, _signals) = client(&mut budget);
    let taken = budget.ask(MemoryPriority::Bulk, Some(account), 48 * K);
    assert!(taken.granted.is_none());
    assert!(budget.has_room_ahead(Some(account), 16 * K));
    assert!(!budget.has_room_ahead(Some(account), 32 * K));
    assert!(budget.has_room_ahead(None, 32 * K));
    let slots: [Arc<dyn ReadAhead>; 2] = [Arc::new(Slot(32 * K)), Arc::new(Slot(16 * K))];
    for slot in &slots {
        budget.ahead(account, slot);
    }
    let parked = budget.ask(MemoryPriority::Bulk, Some(account), 32 * K);
    assert!(parked.granted.is_some());
    let relief = budget.relieve(STALL, Some(account));
    assert!(relief.ahead.len() == 1 && Arc::ptr_eq(&relief.ahead[0], &slots[1]));
    assert!(!budget.has_room_ahead(Some(account), 8 * K));
    let others = budget.ask(MemoryPriority::Bulk, None, 300 * K);
    assert!(others.granted.is_none());
    assert!(!budget.has_room_ahead(None, 8 * K));
}

/// Guards: an account whose large answers use all of its share still gets small ones. A wait for its own bytes drops
/// its read-ahead even if no other account waits. A wait that is given up lets the next one of the account continue.
#[test]
fn a_used_up_share_does_not_delay_small_answers() {
    let mut budget = budget();
    let (id, _) = client(&mut budget);
    let ahead: Arc<dyn ReadAhead> = Arc::new(Slot(64 * K));
    assert!(
        budget
            .ask(MemoryPriority::Bulk, Some(id), 32 * K)
            .granted
            .is_none()
    );
    budget.ahead(id, &ahead);
    assert!(budget.relieve(STALL, Some(id)).ahead.is_empty());
    let large = budget.ask(MemoryPriority::Bulk, Some(id), 64 * K);
    let mut small = budget.ask(MemoryPriority::Bulk, Some(id), 16 * K);
    assert!(large.granted.is_some() && !is_granted(&mut small));
    for _ in 0..4 {
        let urgent = budget.ask(MemoryPriority::Urgent, Some(id), 64 * K);
        assert!(urgent.granted.is_none() && urgent.priority == MemoryPriority::Urgent);
    }
    assert_eq!(budget.relieve(STALL, Some(id)).ahead.len(), 1);
    send_all(budget.withdraw(Some(id), large.id).expect("it waited"));
    assert!(is_granted(&mut small));
    let fifth = budget.ask(MemoryPriority::Urgent, Some(id), 64 * K);
    assert_eq!(
        fifth.priority,
        MemoryPriority::Bulk,
        "its part of the reserve is used"
    );
    send_all(budget.release(Some(id), MemoryPriority::Urgent, 64 * K));
    let sixth = budget.ask(MemoryPriority::Urgent, Some(id), 64 * K);
    assert_eq!(sixth.priority, MemoryPriority::Urgent);
}

/// Guards: a client that dropped one window is revoked again only once that one was returned, or was not returned for
/// long.
#[test]
fn a_client_can_be_revoked_again() {
    let mut budget = budget();
    let (id, signals) = client(&mut budget);
    budget.share = 1024 * K;
    for window in 1000..1003 {
        assert!(
            budget
                .ask(MemoryPriority::Bulk, Some(id), 256 * K)
                .granted
                .is_none()
        );
        budget.delivered(id, window, Duration::ZERO, false);
    }
    let _waiting = budget.ask(MemoryPriority::Bulk, None, 512 * K);
    let mut now = STALL;
    assert_eq!(budget.relieve(now, None).revoked.len(), 1);
    signals.unrevoke();
    now += SCAN_PAUSE;
    assert!(
        budget.relieve(now, None).revoked.is_empty(),
        "it is on its way"
    );
    budget.settled(id, 1000);
    send_all(budget.release(Some(id), MemoryPriority::Bulk, 256 * K));
    now += SCAN_PAUSE;
    assert_eq!(
        budget.relieve(now, None).revoked.len(),
        1,
        "it was not enough"
    );
    now += STALL;
    assert_eq!(budget.relieve(now, None).revoked.len(), 1, "nothing came");
}

/// Guards: all accounts are scanned at bounded intervals, however many wait.
#[test]
fn scans_of_accounts_have_a_minimum_interval() {
    let mut budget = budget();
    let (holder, signals) = client(&mut budget);
    assert!(
        budget
            .ask(MemoryPriority::Bulk, Some(holder), 768 * K)
            .granted
            .is_none()
    );
    budget.delivered(holder, 1000, Duration::ZERO, false);
    let _waiting = budget.ask(MemoryPriority::Bulk, None, 64 * K);
    signals.record_progress(STALL);
    assert!(budget.relieve(STALL, None).revoked.is_empty());
    // As if it had been stalled before.
    signals.record_progress(Duration::ZERO);
    let soon = STALL + SCAN_PAUSE / 2;
    assert!(
        budget.relieve(soon, None).revoked.is_empty(),
        "looked again"
    );
    assert_eq!(budget.relieve(STALL + SCAN_PAUSE, None).revoked.len(), 1);
}

/// Guards: for a file, one client at a time is revoked, and the next once that one reacted or did not for long; only
/// clients with an open file; and all accounts are scanned at bounded intervals.
#[test]
fn one_client_at_a_time_is_revoked_for_a_file() {
    let mut budget = budget();
    let mut clients = Vec::new();
    for number in 0..4 {
        let (id, signals) = client(&mut budget);
        let at = Duration::from_millis(number);
        budget.delivered(id, 1000 + number, at, number > 0);
        clients.push((id, signals));
    }
    let revoked = |budget: &mut Budget, now| {
        let revoked = budget.longest_stalled_with_file(now)?;
        revoked.revoke();
        clients
            .iter()
            .position(|(_, one)| Arc::ptr_eq(one, &revoked))
    };
    let mut now = STALL / 2;
    assert_eq!(revoked(&mut budget, now), None, "none is stalled yet");
    now = STALL * 2;
    assert_eq!(revoked(&mut budget, now), Some(1));
    now += SCAN_PAUSE;
    assert_eq!(revoked(&mut budget, now), None, "a file is on its way");
    budget.close(clients[1].0);
    assert_eq!(revoked(&mut budget, now), None, "looked again");
    now += SCAN_PAUSE;
    assert_eq!(revoked(&mut budget, now), Some(2), "it was not enough");
    now += STALL;
    assert_eq!(revoked(&mut budget, now), Some(3), "nothing came");
}

/// Guards: for a request larger than a portion, as many clients are revoked as it needs.
#[test]
fn a_large_wait_ends() {
    let mut budget = budget();
    for number in 0..12 {
        let (id, _) = client(&mut budget);
        assert!(
            budget
                .ask(MemoryPriority::Urgent, Some(id), 64 * K)
                .granted
                .is_none()
        );
        budget.delivered(id, 1000 + number, Duration::ZERO, false);
    }
    let _waiting = budget.ask(MemoryPriority::Bulk, None, 512 * K);
    assert_eq!(budget.relieve(STALL, None).revoked.len(), 8);
}

/// Guards: the client that took nothing for the longest time is revoked first, and only while others wait. One that
/// takes its bytes is not revoked; one that takes a byte now and then is, in the end.
#[test]
fn the_longest_stalled_gives_way() {
    let mut budget = budget();
    let mut clients = Vec::new();
    for number in 0..12 {
        let (id, signals) = client(&mut budget);
        assert!(
            budget
                .ask(MemoryPriority::Bulk, Some(id), 64 * K)
                .granted
                .is_none()
        );
        budget.delivered(id, 1000 + number, Duration::from_millis(10 * number), false);
        clients.push((id, signals));
    }
    let revoked = |relief: &Relief| relief.revoked.len();
    let late = STALL * 2;
    assert_eq!(revoked(&budget.relieve(late, None)), 0, "nobody waits");
    let mut waiting = budget.ask(MemoryPriority::Bulk, None, 64 * K);
    assert_eq!(
        revoked(&budget.relieve(STALL / 2, None)),
        0,
        "none is stalled yet"
    );
    clients[0].1.record_progress(late);
    let relief = budget.relieve(late, None);
    assert_eq!(revoked(&relief), 1);
    assert!(Arc::ptr_eq(&clients[1].1, &relief.revoked[0]));
    let later = late + SCAN_PAUSE;
    assert_eq!(
        revoked(&budget.relieve(later, None)),
        0,
        "its bytes are on their way"
    );
    budget.settled(clients[1].0, 1001);
    send_all(budget.release(Some(clients[1].0), MemoryPriority::Bulk, 64 * K));
    assert!(is_granted(&mut waiting));
    for (_, signals) in &clients {
        signals.record_progress(STALL * 9);
    }
    let _more = budget.ask(MemoryPriority::Bulk, None, 64 * K);
    assert_eq!(
        revoked(&budget.relieve(STALL * 9, None)),
        0,
        "all take bytes"
    );
    for (_, signals) in &clients {
        signals.record_progress(STALL * 10);
    }
    assert_eq!(
        revoked(&budget.relieve(STALL * 10, None)),
        1,
        "one window in ten stalls"
    );
}
