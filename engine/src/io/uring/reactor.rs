//! The thread of one ring.
//!
//! Owns: [`Shard`], the queue by which others reach the ring; [`start`], its thread. Refuses: entries and their memory
//! (`ring`).
//!
//! Invariants:
//! - An operation that a shard accepted runs, also when its caller is gone or the shard is closed: in the ring, or by
//!   the threads if the ring fails.
//! - The thread sleeps in the kernel until something ends or is submitted; all that was submitted meanwhile is passed
//!   to the kernel by one call.
//! - A panic of the thread aborts the process: nobody could say any more what the kernel still uses.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::operation::Operation;
use super::probe::{self, Unavailable};
use super::queue::{Queue, WORKERS, Weight};
use super::ring::{Ended, Ring};
use crate::io::threads::counts::OperationCounts;
use crate::io::threads::pool::Pool;

/// How long a ring that is closed waits without anything that ends, before it leaves the rest to the kernel.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long a ring waits that has no memory to begin an operation, and how often before it is given up.
const SHORT_WAIT: Duration = Duration::from_millis(10);
const SHORT_WAITS_MAX: u32 = 100;

/// What all rings of a backend share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) pool: Arc<Pool>,
    pub(super) counts: OperationCounts,
    is_off: AtomicBool,
}

impl Shared {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            counts: OperationCounts::new(super::NAME),
            is_off: AtomicBool::new(false),
        }
    }

    /// Returns whether rings are used no more.
    pub(super) fn is_off(&self) -> bool {
        self.is_off.load(Ordering::Relaxed)
    }

    /// Uses rings no more, until the next start.
    pub(super) fn turn_off(&self, errno: Errno) {
        if !self.is_off.swap(true, Ordering::Relaxed) {
            let why = io::Error::from(errno);
            tracing::warn!(
                %why,
                "io_uring does not work any more: from now on threads read and write; restart the server to use it again"
            );
        }
    }
}

/// The queue of one ring.
#[derive(Debug)]
pub(super) struct Shard {
    state: Mutex<State>,
    wakes: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue<Operation>,
    /// The thread waits, or is about to.
    is_asleep: bool,
    /// Nothing more will be submitted; the thread ends after the last operation.
    is_closed: bool,
    /// The ring failed, and the thread takes nothing more.
    is_gone: bool,
}

impl Shard {
    pub(super) fn new(wakes: OwnedFd) -> Self {
        Self {
            state: Mutex::default(),
            wakes,
        }
    }

    /// Queues an operation; returns it if the ring has failed.
    pub(super) fn submit(&self, operation: Operation) -> Option<Operation> {
        let mut state = self.state.lock();
        if state.is_gone {
            return Some(operation);
        }
        state.queue.add(operation.weight(), operation);
        let must_wake = std::mem::take(&mut state.is_asleep);
        drop(state);
        if must_wake {
            self.wake();
        }
        None
    }

    /// Lets the thread end once everything submitted has ended.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        #[expect(
            clippy::host_endian_bytes,
            reason = "an eventfd takes a number of the machine"
        )]
        let one = 1_u64.to_ne_bytes();
        // Fails only if the counter is full, and then the thread is being woken already.
        rustix::io::write(&self.wakes, &one).unwrap_or_default();
    }
}

/// Starts a ring and its thread, which first does real operations.
pub(super) fn start(shared: &Arc<Shared>, number: usize) -> Result<Arc<Shard>, Unavailable> {
    let wakes = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let wakes = wakes.map_err(|errno| Unavailable::new("create an eventfd", errno))?;
    let own = wakes.try_clone();
    let own = own.map_err(|error| Unavailable::of("share an eventfd", error))?;
    let shard = Arc::new(Shard::new(wakes));
    let (told, started) = mpsc::channel();
    let (for_thread, shared) = (Arc::clone(&shard), Arc::clone(shared));
    let thread = std::thread::Builder::new().name(format!("tonnage-ring-{number}"));
    let spawned = thread.spawn(move || {
        let _abort = AbortOnPanic;
        let ring = Ring::new(own, WORKERS)
            .map_err(|error| Unavailable::of("create a ring", error))
            .and_then(|mut ring| probe::run(&mut ring).map(|()| ring));
        match ring {
            Ok(ring) => {
                // The other end waits.
                drop(told.send(Ok(())));
                Reactor::new(ring, for_thread, shared).run();
            }
            Err(unavailable) => drop(told.send(Err(unavailable))),
        }
    });
    spawned.map_err(|error| Unavailable::of("start a thread", error))?;
    match started.recv() {
        Ok(ready) => ready.map(|()| shard),
        Err(gone) => Err(Unavailable::of("start a thread", io::Error::other(gone))),
    }
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// What a thread does next.
enum Next {
    /// Enters the kernel, for at most this long.
    Enter(Option<Duration>),
    /// Ends.
    End,
}

#[derive(Debug)]
pub(super) struct Reactor {
    pub(super) ring: Ring,
    shard: Arc<Shard>,
    shared: Arc<Shared>,
}

impl Reactor {
    pub(super) fn new(ring: Ring, shard: Arc<Shard>, shared: Arc<Shared>) -> Self {
        Self {
            ring,
            shard,
            shared,
        }
    }

    fn run(mut self) {
        let _abort = AbortOnPanic;
        let (mut ended, mut weights, mut started) = (Vec::new(), Vec::new(), Vec::new());
        let mut short_waits = 0;
        loop {
            let limit = match self.next(&mut weights, &mut started) {
                Next::Enter(limit) => limit,
                Next::End => return,
            };
            for (weight, operation) in started.drain(..) {
                self.ring.start(operation, weight);
            }
            match self.ring.enter(limit) {
                Ok(true) => short_waits = 0,
                Ok(false) if limit == Some(DRAIN_LIMIT) => return self.leak(),
                Ok(false) => {}
                Err(Errno::AGAIN | Errno::BUSY | Errno::NOMEM) if short_waits < SHORT_WAITS_MAX => {
                    short_waits += 1;
                    if let Err(errno) = self.ring.wait(SHORT_WAIT) {
                        return self.give_up(errno);
                    }
                }
                Err(errno) => return self.give_up(errno),
            }
            self.ring.take_ended(&mut ended);
            for one in ended.drain(..) {
                weights.push(self.end(one));
            }
        }
    }

    /// Counts what has ended, and takes what starts next.
    fn next(&self, ended: &mut Vec<Weight>, started: &mut Vec<(Weight, Operation)>) -> Next {
        let mut state = self.shard.state.lock();
        for weight in ended.drain(..) {
            state.queue.ended(weight);
        }
        started.extend(std::iter::from_fn(|| state.queue.take()));
        if state.is_closed && state.queue.is_idle() {
            return Next::End;
        }
        state.is_asleep = true;
        Next::Enter(state.is_closed.then_some(DRAIN_LIMIT))
    }

    fn end(&self, ended: Ended) -> Weight {
        let shared = &*self.shared;
        match ended {
            Ended::Done(operation, weight, done) => {
                if let Err(errno @ (Errno::NOSYS | Errno::PERM)) = done {
                    shared.turn_off(errno);
                }
                match done {
                    Err(errno) if operation.may_hand_over(errno) => {
                        operation.hand_over(&shared.pool);
                    }
                    done => operation.finish(done, &shared.pool, &shared.counts),
                }
                weight
            }
            Ended::Unsynced(operation, weight, errno) => {
                operation.finish_unsynced(errno, &shared.pool, &shared.counts);
                weight
            }
        }
    }

    /// Lets the threads do what the kernel has not taken, and waits for the rest.
    pub(super) fn give_up(mut self, errno: Errno) {
        self.shared.turn_off(errno);
        let mut state = self.shard.state.lock();
        state.is_gone = true;
        let waiting = state.queue.drain();
        drop(state);
        for operation in self.ring.close().into_iter().chain(waiting) {
            operation.hand_over(&self.shared.pool);
        }
        let mut ended = Vec::new();
        while self.ring.under_way() > 0 {
            let Ok(true) = self.ring.wait(DRAIN_LIMIT) else {
                return self.leak();
            };
            self.ring.take_ended(&mut ended);
            for one in ended.drain(..) {
                self.end(one);
            }
        }
    }

    /// Leaves what does not end to the kernel, with its memory.
    fn leak(self) {
        let operations = self.ring.under_way();
        tracing::error!(
            operations,
            "operations did not end for {DRAIN_LIMIT:?} after their files were closed; their memory is not freed"
        );
        self.ring.leak();
    }
}
