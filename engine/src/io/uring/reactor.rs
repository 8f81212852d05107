//! The thread of one ring.
//!
//! Owns: [`Shard`], the queue by which others reach the ring; [`start`], its thread. Refuses: entries and their memory
//! (`ring`).
//!
//! Invariants:
//! - An operation that a shard accepted runs, also when its caller is gone or the shard is closed: in the ring, or by
//!   the threads if the ring fails. Only a read whose caller is gone before it begins does not. The thread waits for
//!   operations without limit, as the threads wait for the drive, and nobody waits for the thread.
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
    wakes: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue<Operation>,
    /// The thread waits, or is about to.
    is_asleep: bool,
    /// Nothing more will be submitted; the thread ends after the last operation.
    is_closed: bool,
    /// The ring failed, and the thread takes nothing more.
    has_failed: bool,
}

impl Shard {
    pub(super) fn new(wakes: Arc<OwnedFd>) -> Self {
        Self {
            state: Mutex::default(),
            wakes,
        }
    }

    /// Queues an operation; returns it if the ring has failed.
    pub(super) fn submit(&self, operation: Operation) -> Option<Operation> {
        let mut state = self.state.lock();
        if state.has_failed {
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
    let wakes = Arc::new(wakes);
    let shard = Arc::new(Shard::new(Arc::clone(&wakes)));
    let (told, started) = mpsc::channel();
    let (for_thread, shared) = (Arc::clone(&shard), Arc::clone(shared));
    let thread = std::thread::Builder::new().name(format!("tonnage-ring-{number}"));
    let spawned = thread.spawn(move || {
        let _abort = AbortOnPanic;
        let ring = Ring::new(wakes, WORKERS)
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
        let (mut ended, mut weights, mut started) = (Vec::new(), Vec::new(), Vec::new());
        let mut short_waits = 0;
        while self.has_more(&mut weights, &mut started) {
            for (weight, operation) in started.drain(..) {
                self.ring.start(operation, weight);
            }
            match self.ring.enter(None) {
                Ok(_) => short_waits = 0,
                Err(Errno::AGAIN | Errno::BUSY | Errno::NOMEM) if short_waits < SHORT_WAITS_MAX => {
                    short_waits += 1;
                    if let Err(errno) = self.ring.wait(Some(SHORT_WAIT)) {
                        return self.give_up(errno);
                    }
                }
                Err(errno) => return self.give_up(errno),
            }
            let woken = self.ring.take_ended(&mut ended);
            for one in ended.drain(..) {
                weights.push(self.end(one));
            }
            if let Err(errno) = woken {
                return self.give_up(errno);
            }
        }
    }

    /// Counts what has ended, and takes what starts next. Returns false if the thread ends.
    pub(super) fn has_more(
        &self,
        ended: &mut Vec<Weight>,
        started: &mut Vec<(Weight, Operation)>,
    ) -> bool {
        let mut unwanted = Vec::new();
        let mut state = self.shard.state.lock();
        for weight in ended.drain(..) {
            state.queue.ended(weight);
        }
        while let Some((weight, operation)) = state.queue.take() {
            if operation.is_unwanted() {
                state.queue.ended(weight);
                unwanted.push(operation);
            } else {
                started.push((weight, operation));
            }
        }
        let has_more = !state.is_closed || !state.queue.is_idle();
        state.is_asleep = has_more;
        drop(state);
        for operation in unwanted {
            operation.discard(&self.shared.pool);
        }
        has_more
    }

    fn end(&self, ended: Ended) -> Weight {
        let shared = &*self.shared;
        match ended {
            Ended::Done(operation, weight, done) => {
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
            Ended::Written(operation, weight, count) => {
                operation.hand_over_sync(count, &shared.pool);
                weight
            }
        }
    }

    /// Lets the threads do what the kernel has not taken, and waits for the rest.
    pub(super) fn give_up(mut self, errno: Errno) {
        self.shared.turn_off(errno);
        let mut state = self.shard.state.lock();
        state.has_failed = true;
        let waiting = state.queue.drain();
        drop(state);
        let waiting = waiting.into_iter().map(|operation| (operation, None));
        for (operation, written) in self.ring.close().into_iter().chain(waiting) {
            match written {
                Some(count) => operation.hand_over_sync(count, &self.shared.pool),
                None => operation.hand_over(&self.shared.pool),
            }
        }
        let (mut ended, mut is_reported) = (Vec::new(), false);
        while self.ring.under_way() > 0 {
            if let Err(errno) = self.ring.wait(None) {
                if !std::mem::replace(&mut is_reported, true) {
                    let (why, operations) = (io::Error::from(errno), self.ring.under_way());
                    tracing::error!(%why, operations, "io_uring does not say which operations have ended; asking again");
                }
                std::thread::sleep(SHORT_WAIT);
            }
            // It was turned off already, so a failed wake-up changes nothing.
            self.ring.take_ended(&mut ended).unwrap_or_default();
            for one in ended.drain(..) {
                self.end(one);
            }
        }
    }
}
