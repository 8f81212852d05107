//! A check of linearizability: whether some serial order explains the answers that many clients got.
//!
//! Owns: [`Object`], the effect of each step on one object; [`Call`], a request with its times and its answer;
//! [`explain`].
//! Refuses: calls without an answer (a test that cuts connections must model both outcomes), and objects that depend on
//! each other: those are modelled as one object, or are checked separately.
//!
//! The search is the one of Wing and Gong ("Testing and verifying concurrent objects", 1993) with two optimizations of
//! Lowe ("Testing for linearizability", 2017). It goes forward through the history without backtracking, and stores
//! each pair of a state and of the active calls that took effect. A call that can never change anything takes effect as
//! soon as it fits: an order that explains the rest without it also explains the rest with it. This does not hold for a
//! call that only happens to change nothing now (a write of the present value): it may be needed later. Of equal active
//! calls, the one that ends first goes first.
//!
//! Invariant: an order respects time: a call takes effect between its beginning and its end.

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::hash::Hash;

/// A state of the object, and the effect of every step on it.
pub trait Object: Clone + Eq + Hash + Debug {
    /// A request together with its answer.
    type Step: Debug + PartialEq;

    /// Returns the state after `step`, or `None` if this state cannot give this answer.
    fn after(&self, step: &Self::Step) -> Option<Self>;

    /// Returns whether `step` leaves every state unchanged.
    fn only_reads(step: &Self::Step) -> bool;
}

/// One request and its answer.
#[derive(Debug, Clone)]
pub struct Call<S> {
    /// The time of its beginning, on a clock on which no two events are at once.
    pub begin: u64,
    /// The time of its answer.
    pub end: u64,
    /// The request and its answer.
    pub step: S,
}

/// The cost of explaining a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explained {
    /// The largest number of states that were possible at once.
    pub widest: usize,
    /// The number of answers that were checked: all, or those before the search became too large.
    pub checked: usize,
}

/// An answer that no order explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The number of the call.
    pub call: usize,
    story: String,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.story)
    }
}

/// The maximum number of concurrent calls in a history: one bit each.
const UNDER_WAY_MAX: usize = 64;
/// The maximum number of configurations for one answer. A larger search ends: it takes gigabytes, and minutes for each
/// answer.
const LOOKED_AT_MAX: usize = 2_000_000;
/// The number of states that a contradiction prints.
const QUOTED_MAX: usize = 8;

/// A possible state, and the active calls that took effect already.
type Configuration<T> = (T, u64);

/// The active calls; the position of each is its bit.
type UnderWay = Vec<Option<usize>>;

/// Searches for an order of `calls` that begins in `first` and explains every answer.
pub fn explain<T: Object>(first: T, calls: &[Call<T::Step>]) -> Result<Explained, Contradiction> {
    let mut under_way: UnderWay = Vec::new();
    let mut possible = HashSet::from([(first, 0)]);
    let (mut widest, mut checked) = (1, 0);
    for (_, ends, call) in events(calls) {
        if !ends {
            enter(&mut under_way, call);
            possible = possible
                .into_iter()
                .map(|configuration| absorb(configuration, &under_way, calls))
                .collect();
            continue;
        }
        let place = under_way.iter().position(|entry| *entry == Some(call));
        let place = place.expect("what ends has begun");
        let before = possible.clone();
        let Some(after) = let_take_effect(possible, place, &under_way, calls) else {
            break;
        };
        possible = after;
        if possible.is_empty() {
            return Err(contradiction(call, &before, &under_way, calls));
        }
        widest = widest.max(possible.len());
        checked += 1;
        under_way[place] = None;
    }
    Ok(Explained { widest, checked })
}

/// Returns beginnings and ends in the order of time. A call that begins when another one ends is concurrent with it.
fn events<S>(calls: &[Call<S>]) -> Vec<(u64, bool, usize)> {
    let mut events = Vec::with_capacity(calls.len() * 2);
    for (n, call) in calls.iter().enumerate() {
        assert!(call.begin < call.end, "call {n} ends before it begins");
        events.extend([(call.begin, false, n), (call.end, true, n)]);
    }
    events.sort_unstable();
    events
}

fn enter(under_way: &mut UnderWay, call: usize) {
    match under_way.iter_mut().find(|entry| entry.is_none()) {
        Some(free) => *free = Some(call),
        None => under_way.push(Some(call)),
    }
    assert!(under_way.len() <= UNDER_WAY_MAX, "too many calls at a time");
}

/// Returns the calls that have not taken effect, with their bits.
fn waiting(under_way: &UnderWay, done: u64) -> impl Iterator<Item = (u64, usize)> {
    let calls = under_way.iter().enumerate();
    calls.filter_map(move |(place, call)| {
        let bit = 1 << place;
        call.filter(|_| done & bit == 0).map(|call| (bit, call))
    })
}

/// Returns those of them that may be next. Of equal ones it is the one that ends first, because any other could be
/// exchanged with it.
fn next<S: PartialEq>(under_way: &UnderWay, done: u64, calls: &[Call<S>]) -> Vec<(u64, usize)> {
    let mut all: Vec<_> = waiting(under_way, done).collect();
    all.sort_unstable_by_key(|(_, call)| calls[*call].end);
    let mut chosen: Vec<(u64, usize)> = Vec::with_capacity(all.len());
    for (bit, call) in all {
        let step = &calls[call].step;
        if chosen.iter().all(|(_, other)| calls[*other].step != *step) {
            chosen.push((bit, call));
        }
    }
    chosen
}

/// Lets every call take effect that fits and can never change anything.
fn absorb<T: Object>(
    (state, mut done): Configuration<T>,
    under_way: &UnderWay,
    calls: &[Call<T::Step>],
) -> Configuration<T> {
    for (bit, call) in waiting(under_way, done) {
        let step = &calls[call].step;
        if T::only_reads(step) && state.after(step).is_some() {
            done |= bit;
        }
    }
    (state, done)
}

/// Returns every configuration in which the call at `place` took effect, after any others, or `None` if there are too
/// many.
fn let_take_effect<T: Object>(
    possible: HashSet<Configuration<T>>,
    place: usize,
    under_way: &UnderWay,
    calls: &[Call<T::Step>],
) -> Option<HashSet<Configuration<T>>> {
    let own = 1 << place;
    let mut ahead: Vec<_> = possible.iter().cloned().collect();
    let mut seen = possible;
    let mut found = HashSet::new();
    while let Some((state, done)) = ahead.pop() {
        if seen.len() > LOOKED_AT_MAX {
            return None;
        }
        if done & own != 0 {
            found.insert((state, done & !own));
            continue;
        }
        for (bit, call) in next(under_way, done, calls) {
            let Some(next) = state.after(&calls[call].step) else {
                continue;
            };
            let next = absorb((next, done | bit), under_way, calls);
            if seen.insert(next.clone()) {
                ahead.push(next);
            }
        }
    }
    Some(found)
}

fn contradiction<T: Object>(
    call: usize,
    before: &HashSet<Configuration<T>>,
    under_way: &UnderWay,
    calls: &[Call<T::Step>],
) -> Contradiction {
    use std::fmt::Write as _;
    let mut story = format!(
        "no serial order explains {:?}, the answer to call {call}\n",
        calls[call]
    );
    // A write to a string cannot fail.
    let mut line = |text: String| writeln!(story, "{text}").unwrap_or_default();
    for other in under_way.iter().flatten().filter(|other| **other != call) {
        line(format!("  active: {:?}", calls[*other]));
    }
    let states: HashSet<&T> = before.iter().map(|(state, _)| state).collect();
    for state in states.iter().take(QUOTED_MAX) {
        line(format!("  possible before: {state:?}"));
    }
    if states.len() > QUOTED_MAX {
        line(format!("  and {} more states", states.len() - QUOTED_MAX));
    }
    Contradiction { call, story }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cell that is read, written, and set only if it has the expected value.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    struct Cell(u8);

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Step {
        Read(u8),
        Write(u8),
        /// From, to, and whether it was set.
        Swap(u8, u8, bool),
    }
    use Step::{Read, Swap, Write};

    impl Object for Cell {
        type Step = Step;

        fn after(&self, step: &Step) -> Option<Self> {
            match *step {
                Read(value) => (value == self.0).then_some(*self),
                Write(value) => Some(Self(value)),
                Swap(from, to, true) => (from == self.0).then_some(Self(to)),
                Swap(from, _, false) => (from != self.0).then_some(*self),
            }
        }

        fn only_reads(step: &Step) -> bool {
            matches!(step, Read(_) | Swap(_, _, false))
        }
    }

    fn check(calls: &[(u64, u64, Step)]) -> Result<Explained, Contradiction> {
        let calls = calls
            .iter()
            .map(|&(begin, end, step)| Call { begin, end, step });
        explain(Cell(0), &calls.collect::<Vec<_>>())
    }

    /// Guards: the checker itself: it finds the violation in each of these histories, at the call that shows it.
    #[test]
    fn bad_histories_are_found() {
        for (what, calls, call) in [
            (
                "a read after a write that still returns the old value",
                &[(1, 2, Write(1)), (3, 4, Read(0))][..],
                1,
            ),
            (
                "a read of a value that was never written",
                &[(1, 4, Write(1)), (2, 3, Read(2))],
                1,
            ),
            (
                "two reads that see one write come and go",
                &[(1, 10, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))],
                2,
            ),
            (
                "two winners of one compare-and-set",
                &[(1, 5, Swap(0, 1, true)), (2, 6, Swap(0, 2, true))],
                1,
            ),
            (
                "a loser without a winner",
                &[(1, 2, Swap(0, 1, false)), (3, 4, Write(1))],
                0,
            ),
            (
                "a lost write: two overlap, both are over, and the first value is back",
                &[
                    (1, 4, Write(1)),
                    (2, 5, Write(2)),
                    (6, 7, Read(0)),
                    (8, 9, Read(1)),
                ],
                2,
            ),
            (
                "two readers that see two writes in different orders",
                &[
                    (1, 20, Write(1)),
                    (2, 21, Write(2)),
                    (3, 4, Read(1)),
                    (5, 6, Read(2)),
                    (7, 8, Read(1)),
                ],
                4,
            ),
        ] {
            let found = check(calls).expect_err(what);
            assert_eq!(found.call, call, "{what}: {found}");
            assert!(found.to_string().contains("no serial order"), "{found}");
        }
    }

    /// Guards: the checker itself: it explains unusual histories that have an order.
    #[test]
    fn good_histories_are_explained() {
        for calls in [
            &[][..],
            // A write takes effect between two reads during it.
            &[(1, 10, Write(1)), (2, 3, Read(0)), (4, 5, Read(1))],
            // The later of two overlapping writes may go first.
            &[(1, 5, Write(1)), (2, 6, Write(2)), (7, 8, Read(1))],
            // A read that ends last may return the value at its beginning.
            &[(1, 9, Read(0)), (2, 3, Write(1)), (4, 5, Write(2))],
            // A write that would have changed nothing at first restores the value later.
            &[(1, 20, Write(0)), (2, 3, Write(1)), (4, 5, Read(0))],
            // One winner; the loser, which began earlier, failed because of it.
            &[(1, 6, Swap(0, 1, false)), (2, 5, Swap(0, 2, true))],
            // A chain in which every call overlaps only the next one.
            &[
                (1, 4, Write(1)),
                (3, 7, Swap(1, 2, true)),
                (6, 9, Swap(2, 3, true)),
                (10, 11, Read(3)),
            ],
        ] {
            if let Err(found) = check(calls) {
                panic!("{calls:?}: {found}");
            }
        }
    }

    /// Guards: many concurrent calls are checked in bounded work: calls that change nothing do not multiply it.
    #[test]
    fn reads_do_not_multiply_the_search() {
        let reads = (0..60).map(|n| (n + 1, 1000 + n, Read(u8::from(n % 2 == 0))));
        let calls: Vec<_> = reads.chain([(500, 600, Write(1))]).collect();
        assert!(check(&calls).expect("an order").widest <= 2);
    }
}
