//! Whether some serial order explains what many clients were answered (linearizability).
//!
//! Owns: [`Object`], what one object does step by step; [`Call`], who asked when and what came; [`explain`].
//! Refuses: calls without an answer (whoever cuts connections has to model both outcomes), and objects that
//! depend on each other: those are one object, or are checked each by itself.
//!
//! The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993) with Lowe's two savings ("Testing
//! for linearizability", 2017): it goes along the history instead of back and forth, and remembers each pair
//! of a state and of the calls under way that took effect already. A call that can never change anything takes effect as
//! soon as it fits: whatever order explains the rest without it explains the rest with it. One that only happens to change nothing
//! now (writing what is there) does not: it may be needed later. Of equal calls under way the one that ends first goes first.
//!
//! Invariant: an order respects time; a call takes effect between its beginning and its end.

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::hash::Hash;

/// A state of the object, and what every step makes of it.
pub trait Object: Clone + Eq + Hash + Debug {
    /// A request together with its answer.
    type Step: Debug + PartialEq;

    /// The state behind `step`, `None` if nobody may be answered so in this state.
    fn after(&self, step: &Self::Step) -> Option<Self>;

    /// Whether `step` leaves every state as it is.
    fn only_reads(step: &Self::Step) -> bool;
}

/// One request and its answer.
#[derive(Debug, Clone)]
pub struct Call<S> {
    /// When it began, on a clock on which no two events are at once.
    pub begin: u64,
    /// When its answer was there.
    pub end: u64,
    /// What was asked and answered.
    pub step: S,
}

/// How hard it was to explain a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explained {
    /// Most states that were possible at once.
    pub widest: usize,
    /// Answers that were judged: all, or those before the search got too wide.
    pub judged: usize,
}

/// An answer that no order explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// Which call's.
    pub call: usize,
    story: String,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.story)
    }
}

/// Calls at the same time that one history may have: one bit each.
const UNDER_WAY_MAX: usize = 64;
/// Configurations looked at for one answer, beyond which the search is given up: they take gigabytes, and minutes each.
const LOOKED_AT_MAX: usize = 2_000_000;
/// States quoted in a contradiction.
const QUOTED_MAX: usize = 8;

/// A state that is possible, and which calls under way took effect already.
type Configuration<T> = (T, u64);

/// Calls under way: each has the place of its bit.
type UnderWay = Vec<Option<usize>>;

/// Looks for an order of `calls` that begins in `first` and explains every answer.
pub fn explain<T: Object>(first: T, calls: &[Call<T::Step>]) -> Result<Explained, Contradiction> {
    let mut under_way: UnderWay = Vec::new();
    let mut possible = HashSet::from([(first, 0)]);
    let (mut widest, mut judged) = (1, 0);
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
        judged += 1;
        under_way[place] = None;
    }
    Ok(Explained { widest, judged })
}

/// Beginnings and ends in the order of time; what begins when another ends is at the same time as it.
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

/// Calls that did not take effect yet, with their bits.
fn waiting(under_way: &UnderWay, done: u64) -> impl Iterator<Item = (u64, usize)> {
    let calls = under_way.iter().enumerate();
    calls.filter_map(move |(place, call)| {
        let bit = 1 << place;
        call.filter(|_| done & bit == 0).map(|call| (bit, call))
    })
}

/// Of those, the ones that may be next: among equal ones the one that ends first, since any other could change places with it.
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

/// Lets everything take effect that fits and can never change anything.
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

/// Every configuration in which the call at `place` took effect, behind whichever others went before it. `None`: too many.
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
    // Writing into a string cannot fail.
    let mut line = |text: String| writeln!(story, "{text}").unwrap_or_default();
    for other in under_way.iter().flatten().filter(|other| **other != call) {
        line(format!("  under way: {:?}", calls[*other]));
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

    /// A cell that is read, written, and set only where it has the expected value.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    struct Cell(u8);

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Step {
        Read(u8),
        Write(u8),
        /// From, to, whether it was done.
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

    fn judge(calls: &[(u64, u64, Step)]) -> Result<Explained, Contradiction> {
        let calls = calls
            .iter()
            .map(|&(begin, end, step)| Call { begin, end, step });
        explain(Cell(0), &calls.collect::<Vec<_>>())
    }

    /// Guards: the checker itself: what is wrong in each of these hand-written histories is found, at the call that shows it.
    #[test]
    fn bad_histories_are_found() {
        for (what, calls, call) in [
            (
                "a read behind a write that still sees what was before",
                &[(1, 2, Write(1)), (3, 4, Read(0))][..],
                1,
            ),
            (
                "a read of what nobody wrote",
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
            let found = judge(calls).expect_err(what);
            assert_eq!(found.call, call, "{what}: {found}");
            assert!(found.to_string().contains("no serial order"), "{found}");
        }
    }

    /// Guards: the checker itself: histories that look odd and have an order are explained.
    #[test]
    fn good_histories_are_explained() {
        for calls in [
            &[][..],
            // A write takes effect between two reads that lie inside it.
            &[(1, 10, Write(1)), (2, 3, Read(0)), (4, 5, Read(1))],
            // The later of two overlapping writes may go first.
            &[(1, 5, Write(1)), (2, 6, Write(2)), (7, 8, Read(1))],
            // A read that ends last saw what was there when it began.
            &[(1, 9, Read(0)), (2, 3, Write(1)), (4, 5, Write(2))],
            // A write that would have changed nothing at first is what brings the value back.
            &[(1, 20, Write(0)), (2, 3, Write(1)), (4, 5, Read(0))],
            // One winner, and a loser that came before it was refused by the other.
            &[(1, 6, Swap(0, 1, false)), (2, 5, Swap(0, 2, true))],
            // A chain in which every call overlaps the next only.
            &[
                (1, 4, Write(1)),
                (3, 7, Swap(1, 2, true)),
                (6, 9, Swap(2, 3, true)),
                (10, 11, Read(3)),
            ],
        ] {
            if let Err(found) = judge(calls) {
                panic!("{calls:?}: {found}");
            }
        }
    }

    /// Guards: a history of many calls at a time is judged in bounded work: what changes nothing multiplies nothing.
    #[test]
    fn reads_do_not_multiply_the_search() {
        let reads = (0..60).map(|n| (n + 1, 1000 + n, Read(u8::from(n % 2 == 0))));
        let calls: Vec<_> = reads.chain([(500, 600, Write(1))]).collect();
        assert!(judge(&calls).expect("an order").widest <= 2);
    }
}
