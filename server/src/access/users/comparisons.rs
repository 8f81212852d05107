//! Which comparisons of passwords run.
//!
//! Owns: [`Comparisons`], a queue with a fair rule. Refuses: what a comparison is.
//!
//! A comparison takes about 0.2 s of a processor by intention, so anyone could take all of them. Clients who logged in
//! before and others take turns, and in each of these groups every client has one turn after another. A client has a
//! few comparisons waiting, and a group has a bounded number; beyond that a request is refused at once.
//!
//! Invariant: at most `bound` run at a time, also if the requests that wait for them end. One whose request has ended
//! is not begun.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonnage_engine::io::Workers;
use tonnage_engine::vocabulary::ClientId;

/// Comparisons of a client that wait: several jobs of one machine may begin at a time.
const CLIENT_MAX: usize = 16;
/// Comparisons of a group that wait.
const GROUP_MAX: usize = 64;

/// The error that too many comparisons wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// A queue of comparisons.
#[derive(Debug)]
pub(super) struct Comparisons {
    bound: usize,
    /// Threads of its own, so that a limit on threads that is reached later does not matter.
    workers: Workers,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those of clients who logged in before, and those of others.
    groups: [Group; 2],
    /// The group whose turn is next.
    next: usize,
    running: usize,
}

/// The clients of a group, in the order of their turns, each with what waits.
#[derive(Debug, Default)]
struct Group {
    clients: VecDeque<(IpAddr, VecDeque<Waiting>)>,
    count: usize,
}

struct Waiting {
    compare: Box<dyn FnOnce() -> bool + Send>,
    done: oneshot::Sender<bool>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiting")
    }
}

impl Comparisons {
    /// Creates a queue of which `bound` run at a time, and starts as many threads.
    pub(super) fn start(bound: usize) -> io::Result<Arc<Self>> {
        let bound = bound.max(1);
        Ok(Arc::new(Self {
            bound,
            workers: Workers::start("tonnage-login", bound, bound)?,
            state: Mutex::default(),
        }))
    }

    /// Runs a comparison off the async workers when it is the turn of `client`. Returns what it found; false if it
    /// panicked.
    ///
    /// # Errors
    /// [`Busy`] if too many wait.
    pub(super) async fn run(
        self: &Arc<Self>,
        client: IpAddr,
        is_known: bool,
        compare: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool, Busy> {
        let (done, found) = oneshot::channel();
        let waiting = Waiting {
            compare: Box::new(compare),
            done,
        };
        {
            let mut state = self.state.lock();
            let [known, others] = &mut state.groups;
            let group = if is_known { known } else { others };
            group.add(client, waiting)?;
            if state.running < self.bound {
                state.running += 1;
                let this = Arc::clone(self);
                // Whose turn it is, is decided when it runs.
                let run = move || this.work();
                self.workers.submit(0, ClientId::ENGINE, run);
            }
        }
        // An error says that it was dropped for another client's.
        found.await.map_err(|_dropped| Busy)
    }

    /// Runs what waits, until nothing does.
    fn work(&self) {
        while let Some(Waiting { compare, done }) = self.next() {
            if done.is_closed() {
                continue;
            }
            let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare));
            // The request may have ended meanwhile.
            done.send(compared.unwrap_or(false)).unwrap_or_default();
        }
    }

    fn next(&self) -> Option<Waiting> {
        let mut state = self.state.lock();
        let turn = state.next;
        state.next = 1 - turn;
        let [known, others] = &mut state.groups;
        let (first, second) = if turn == 0 {
            (known, others)
        } else {
            (others, known)
        };
        let next = first.take().or_else(|| second.take());
        if next.is_none() {
            state.running -= 1;
        }
        next
    }
}

impl Group {
    fn add(&mut self, client: IpAddr, waiting: Waiting) -> Result<(), Busy> {
        if self.count >= GROUP_MAX {
            self.make_room(client)?;
        }
        match self.clients.iter_mut().find(|(known, _)| *known == client) {
            Some((_, all)) if all.len() >= CLIENT_MAX => return Err(Busy),
            Some((_, all)) => all.push_back(waiting),
            None => self.clients.push_back((client, VecDeque::from([waiting]))),
        }
        self.count += 1;
        Ok(())
    }

    /// Drops the newest comparison of the client that has the most, if it has more than `client` would have.
    fn make_room(&mut self, client: IpAddr) -> Result<(), Busy> {
        let own = self.clients.iter().find(|(known, _)| *known == client);
        let own = own.map_or(0, |(_, all)| all.len());
        let most = self.clients.iter_mut().max_by_key(|(_, all)| all.len());
        let (_, all) = most.filter(|(_, all)| all.len() > own + 1).ok_or(Busy)?;
        drop(all.pop_back());
        self.count -= 1;
        Ok(())
    }

    fn take(&mut self) -> Option<Waiting> {
        let (client, mut all) = self.clients.pop_front()?;
        let next = all.pop_front();
        if !all.is_empty() {
            self.clients.push_back((client, all));
        }
        self.count -= usize::from(next.is_some());
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Guards: clients take turns, those who logged in before with all others; a client, and a group, has a bound on
    /// what waits. What nobody waits for any more is not begun, and never more than the bound run.
    #[tokio::test]
    async fn comparisons_take_turns() {
        let queue = Comparisons::start(1).unwrap();
        let (open, gate) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let first = queue.run(client(0), false, move || {
            begin.send(()).unwrap();
            gate.recv().is_err()
        });
        let mut first = Box::pin(first);
        assert!(first.as_mut().now_or_never().is_none());
        begun.recv().unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let running = Arc::new(AtomicUsize::new(0));
        let queued = |number: u8, is_known: bool| {
            let (order, running) = (Arc::clone(&order), Arc::clone(&running));
            let mut compared = Box::pin(queue.run(client(number), is_known, move || {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                order.lock().push((number, is_known));
                running.fetch_sub(1, Ordering::SeqCst);
                true
            }));
            let begun = compared.as_mut().now_or_never();
            (compared, begun)
        };
        // One guesses, two others come later, and one who is known.
        let mut waiting: Vec<_> = [1, 1, 1, 1, 2, 3]
            .map(|number| queued(number, false).0)
            .into();
        let known = queued(1, true).0;
        // The request of the second guess ends.
        drop(waiting.remove(1));
        open.send(()).unwrap();
        assert_eq!(first.await, Ok(false));
        assert_eq!(known.await, Ok(true));
        for compared in waiting {
            assert_eq!(compared.await, Ok(true));
        }
        let expected = [
            (1, false),
            (1, true),
            (2, false),
            (3, false),
            (1, false),
            (1, false),
        ];
        assert_eq!(*order.lock(), expected);
        let mut full: Vec<_> = Vec::new();
        let (_open, gate) = mpsc::channel::<()>();
        let mut holds = Box::pin(queue.run(client(0), false, move || gate.recv().is_err()));
        assert!(holds.as_mut().now_or_never().is_none());
        for number in 0..100 {
            full.push(queued(number, false));
        }
        let refused = full
            .iter()
            .filter(|(_, begun)| *begun == Some(Err(Busy)))
            .count();
        assert!(
            (100 - GROUP_MAX..=101 - GROUP_MAX).contains(&refused),
            "{refused}"
        );
        assert!(queued(7, true).1.is_none(), "the other group has room");
    }

    /// Guards: a client has a bound on what waits. When too much waits, what is dropped is of the client that has most.
    #[tokio::test]
    async fn the_client_with_most_loses_one() {
        let queue = Comparisons::start(1).unwrap();
        let (_open, gate) = mpsc::channel::<()>();
        let begin = |number: u8, wait: Option<mpsc::Receiver<()>>| {
            let compare = move || wait.is_some_and(|gate| gate.recv().is_err());
            let mut compared = Box::pin(queue.run(client(number), false, compare));
            let begun = compared.as_mut().now_or_never();
            (compared, begun)
        };
        let held = begin(0, Some(gate));
        let mut many: Vec<_> = (0..=CLIENT_MAX).map(|_| begin(1, None)).collect();
        assert_eq!(
            many.pop().unwrap().1,
            Some(Err(Busy)),
            "a client has a bound"
        );
        let others: Vec<_> = (2..50).map(|number| begin(number, None)).collect();
        let last = begin(60, None);
        assert_eq!(last.1, None, "there is room for who has nothing");
        let (dropped, _) = many.pop().unwrap();
        assert_eq!(dropped.now_or_never(), Some(Err(Busy)));
        drop((held, others));
    }
}
