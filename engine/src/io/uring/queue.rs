//! The operations that wait for a ring, and the bounds of what is under way.
//!
//! Owns: [`Queue`], in which order operations start. Refuses: knowing what an operation does; starting it.
//!
//! Rules, in this order:
//! - No bound is exceeded: operations, operations that block a worker of the kernel, and bytes; for background work,
//!   for all classes that no commit waits for, and for all together. An operation with more bytes than its class may
//!   have counts for that many only, so it starts, and leaves the reserve to commits.
//! - A class that was passed over [`PASSED_MAX`] times is next, so none waits for ever. While a bound does not let it
//!   start, only commits do.
//! - Otherwise the most urgent class is next. Of one class, clients take turns, and the operations of each start in the
//!   order in which they came.
//!
//! Background work has a small share of each bound, and another share is reserved for commits.

use crate::client_turns::ClientTurns;
use crate::io::Class;
use crate::vocabulary::ClientId;

/// Most operations of a ring under way.
pub(super) const OPERATIONS: usize = 64;
/// Most of them that block a worker of the kernel (writes and syncs), and the number of these workers.
pub(super) const WORKERS: u32 = 8;
/// Most bytes of operations under way.
const BYTES: usize = 64 << 20;
/// What is reserved for the classes that a commit waits for.
const RESERVED: Load = Load {
    operations: 8,
    blocking: 2,
    bytes: 16 << 20,
};
/// Background work has this part of each bound.
const BACKGROUND_PART: usize = 4;
/// How often a class that could start is passed over.
const PASSED_MAX: u32 = 32;

/// What an operation counts for, and for whom it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    pub(super) class: Class,
    pub(super) client: ClientId,
    pub(super) bytes: usize,
    /// Whether it blocks a worker of the kernel.
    pub(super) blocks: bool,
}

impl Weight {
    /// Returns the bytes that it counts for.
    fn counted_bytes(self) -> usize {
        let bound = if self.class == Class::Background {
            BACKGROUND
        } else {
            WITHOUT_COMMITS
        };
        self.bytes.min(bound.bytes)
    }
}

/// What is under way, or a bound of it.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    operations: usize,
    blocking: usize,
    bytes: usize,
}

const ALL: Load = Load {
    operations: OPERATIONS,
    blocking: WORKERS as usize,
    bytes: BYTES,
};
const WITHOUT_COMMITS: Load = Load {
    operations: ALL.operations - RESERVED.operations,
    blocking: ALL.blocking - RESERVED.blocking,
    bytes: ALL.bytes - RESERVED.bytes,
};
const BACKGROUND: Load = Load {
    operations: ALL.operations / BACKGROUND_PART,
    blocking: ALL.blocking / BACKGROUND_PART,
    bytes: ALL.bytes / BACKGROUND_PART,
};

impl Load {
    fn add(&mut self, weight: Weight) {
        self.operations += 1;
        self.blocking += usize::from(weight.blocks);
        self.bytes += weight.counted_bytes();
    }

    fn remove(&mut self, weight: Weight) {
        self.operations -= 1;
        self.blocking -= usize::from(weight.blocks);
        self.bytes -= weight.counted_bytes();
    }

    fn has_room(&self, weight: Weight, bound: Load) -> bool {
        self.operations < bound.operations
            && (!weight.blocks || self.blocking < bound.blocking)
            && self.bytes + weight.counted_bytes() <= bound.bytes
    }
}

/// The waiting operations of one class.
#[derive(Debug)]
struct Waiting<T> {
    items: ClientTurns<(Weight, T)>,
    /// How often another class started while this one could have.
    passed: u32,
}

/// Operations that wait, by class.
#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: [Waiting<T>; Class::ALL.len()],
    all: Load,
    without_commits: Load,
    background: Load,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            waiting: Class::ALL.map(|_| Waiting {
                items: ClientTurns::default(),
                passed: 0,
            }),
            all: Load::default(),
            without_commits: Load::default(),
            background: Load::default(),
        }
    }
}

/// Whether a class counts against the bound that leaves the reserve to commits.
fn is_without_commits(class: Class) -> bool {
    !matches!(class, Class::Journal | Class::CommitData)
}

impl<T> Queue<T> {
    /// Adds an operation.
    pub(super) fn add(&mut self, weight: Weight, item: T) {
        let waiting = self.waiting.get_mut(weight.class as usize);
        if let Some(waiting) = waiting {
            waiting.items.push(weight.client, (weight, item));
        }
    }

    /// Takes the operation that starts next, which counts as under way until [`Queue::ended`].
    pub(super) fn take(&mut self) -> Option<(Weight, T)> {
        let chosen = self.choose()?;
        let (weight, item) = self.waiting.get_mut(chosen)?.items.pop()?;
        for index in 0..self.waiting.len() {
            let could_start = index != chosen && self.fits_its_class(index);
            if let Some(waiting) = self.waiting.get_mut(index) {
                waiting.passed = if could_start { waiting.passed + 1 } else { 0 };
            }
        }
        for load in self.loads(weight.class) {
            load.add(weight);
        }
        Some((weight, item))
    }

    /// Returns the index of the class that is next.
    fn choose(&self) -> Option<usize> {
        let could_start = || (0..self.waiting.len()).filter(|index| self.fits_its_class(*index));
        let was_passed = |index: &usize| {
            let waiting = self.waiting.get(*index);
            waiting.is_some_and(|waiting| waiting.passed >= PASSED_MAX)
        };
        let passed = could_start().find(was_passed);
        if passed.is_some_and(|index| self.fits_all(index)) {
            return passed;
        }
        // What is under way must end for a class that was passed over, so only commits pass it again.
        let may_start = |index: &usize| {
            let head = self.head(*index);
            let is_commit = head.is_some_and(|weight| !is_without_commits(weight.class));
            passed.is_none() || is_commit
        };
        let mut fitting = could_start().filter(|index| self.fits_all(*index));
        fitting.find(may_start)
    }

    fn head(&self, index: usize) -> Option<Weight> {
        let waiting = self.waiting.get(index)?;
        waiting.items.first().map(|(weight, _)| *weight)
    }

    /// Returns whether a class has an operation and its own bound allows it.
    fn fits_its_class(&self, index: usize) -> bool {
        self.head(index).is_some_and(|weight| {
            weight.class != Class::Background || self.background.has_room(weight, BACKGROUND)
        })
    }

    /// Returns whether the bounds that classes share allow the next operation of a class.
    fn fits_all(&self, index: usize) -> bool {
        self.head(index).is_some_and(|weight| {
            let others = !is_without_commits(weight.class)
                || self.without_commits.has_room(weight, WITHOUT_COMMITS);
            others && self.all.has_room(weight, ALL)
        })
    }

    /// Returns the loads that an operation of `class` counts for.
    fn loads(&mut self, class: Class) -> impl Iterator<Item = &mut Load> {
        let others = is_without_commits(class).then_some(&mut self.without_commits);
        let background = (class == Class::Background).then_some(&mut self.background);
        [Some(&mut self.all), others, background]
            .into_iter()
            .flatten()
    }

    /// Counts an operation as ended.
    pub(super) fn ended(&mut self, weight: Weight) {
        for load in self.loads(weight.class) {
            load.remove(weight);
        }
    }

    /// Returns whether nothing waits and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        let none_waits = self
            .waiting
            .iter()
            .all(|waiting| waiting.items.first().is_none());
        none_waits && self.all.operations == 0
    }

    /// Removes all operations that wait, the most urgent class first.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let waiting = self.waiting.iter_mut();
        let items = waiting.flat_map(|waiting| std::iter::from_fn(|| waiting.items.pop()));
        items.map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn weight(class: Class, bytes: usize, blocks: bool) -> Weight {
        Weight {
            class,
            client: ClientId::ENGINE,
            bytes,
            blocks,
        }
    }

    fn queue_of(items: impl IntoIterator<Item = Weight>) -> Queue<usize> {
        let mut queue = Queue::default();
        for (number, weight) in items.into_iter().enumerate() {
            queue.add(weight, number);
        }
        queue
    }

    fn take_all(queue: &mut Queue<usize>) -> Vec<Weight> {
        std::iter::from_fn(|| queue.take())
            .map(|(weight, _)| weight)
            .collect()
    }

    /// Guards: the most urgent class starts first, and operations of one class in their order.
    #[test]
    fn the_most_urgent_class_starts_first() {
        let twice = Class::ALL.iter().rev().chain(Class::ALL.iter());
        let mut queue = queue_of(twice.map(|class| weight(*class, 1, false)));
        let order = std::iter::from_fn(|| queue.take());
        let order: Vec<usize> = order.map(|(_, number)| number).collect();
        assert_eq!(order, [5, 6, 4, 7, 3, 8, 2, 9, 1, 10, 0, 11]);
    }

    /// Guards: of one class, clients take turns, so one with many operations does not keep those of another waiting.
    #[test]
    fn clients_take_turns() {
        let of = |client| Weight {
            client: ClientId(client),
            ..weight(Class::UploadWrite, 1, false)
        };
        let mut queue = queue_of([1, 1, 1, 2, 2].map(of));
        let order: Vec<usize> = std::iter::from_fn(|| queue.take())
            .map(|(_, number)| number)
            .collect();
        assert_eq!(order, [0, 3, 1, 4, 2]);
    }

    /// Guards: neither operations, nor bytes, nor workers of the kernel exceed their bounds, and each that ends lets
    /// another start.
    #[test]
    fn what_is_under_way_is_bounded() {
        for (one, most) in [
            (weight(Class::Journal, 1, false), OPERATIONS),
            (weight(Class::Journal, 1, true), ALL.blocking),
            (weight(Class::Journal, 8 << 20, false), BYTES / (8 << 20)),
            (weight(Class::Journal, 2 * BYTES, false), 1),
            (weight(Class::UploadWrite, 1, false), OPERATIONS - 8),
            (weight(Class::UploadWrite, 1, true), ALL.blocking - 2),
            (weight(Class::ForegroundRead, 8 << 20, false), 6),
        ] {
            let mut queue = queue_of([one; 2 * OPERATIONS]);
            let started = take_all(&mut queue);
            assert_eq!(started.len(), most, "{one:?}");
            for weight in started {
                queue.ended(weight);
                assert!(queue.take().is_some(), "{one:?}");
            }
        }
    }

    /// Guards: background work alone has a quarter of a ring, and whatever else fills the ring, a commit starts at
    /// once.
    #[test]
    fn background_work_leaves_room() {
        for blocks in [false, true] {
            let mut queue = queue_of([weight(Class::Background, 1, blocks); 100]);
            let bound = if blocks { ALL.blocking } else { OPERATIONS };
            assert_eq!(take_all(&mut queue).len(), bound / 4);
            for _ in 0..100 {
                queue.add(weight(Class::UploadWrite, 1, blocks), 0);
            }
            take_all(&mut queue);
            queue.add(weight(Class::Journal, 100, true), 0);
            assert_eq!(take_all(&mut queue).len(), 1);
        }
    }

    /// Guards: commits start one after the other beside syncs that hang, however many others wait.
    #[test]
    fn commits_never_wait_for_syncs_of_others() {
        let mut queue = queue_of([weight(Class::UploadWrite, 0, true); 20]);
        assert_eq!(take_all(&mut queue).len(), 6);
        for number in 0..4 * PASSED_MAX {
            queue.add(weight(Class::Journal, 100, true), 0);
            let started = take_all(&mut queue);
            assert_eq!(started.len(), 1, "{number}");
            queue.ended(started[0]);
        }
    }

    /// Guards: an operation with more bytes than its class may have starts beside others, and leaves room for a
    /// commit.
    #[test]
    fn a_large_operation_leaves_room_for_commits() {
        for class in [Class::Background, Class::UploadWrite] {
            let mut queue = queue_of([weight(class, 80 << 20, false)]);
            assert_eq!(take_all(&mut queue).len(), 1);
            queue.add(weight(Class::Journal, 100, true), 0);
            assert_eq!(take_all(&mut queue).len(), 1, "beside {class:?}");
        }
        let mut queue = queue_of([weight(Class::Journal, 100, true)]);
        assert_eq!(take_all(&mut queue).len(), 1);
        queue.add(weight(Class::Background, 80 << 20, false), 0);
        assert_eq!(take_all(&mut queue).len(), 1);
    }

    /// Guards: background work starts now and then however much urgent work there is, also if it is large.
    #[test]
    fn background_work_is_not_starved() {
        let mut queue = queue_of([weight(Class::Background, 40 << 20, false); 2]);
        let mut under_way = VecDeque::new();
        let mut started = 0;
        for _ in 0..1000 {
            queue.add(weight(Class::ForegroundRead, 4 << 20, false), 0);
            queue.add(weight(Class::ForegroundRead, 4 << 20, false), 0);
            for weight in take_all(&mut queue) {
                started += usize::from(weight.class == Class::Background);
                under_way.push_back(weight);
            }
            if let Some(weight) = under_way.pop_front() {
                queue.ended(weight);
            }
        }
        assert_eq!(started, 2);
    }
}
