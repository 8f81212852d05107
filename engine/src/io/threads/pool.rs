//! The threads behind the backend: two queues, each with threads of its own that come and go.
//!
//! Owns: [`Pool`], [`Lane`]. Refuses: knowing what a job does.
//!
//! Two queues because a sync may hold its thread for seconds on a busy drive: were they one, a burst of
//! uploads would put all threads into fdatasync and every read behind them. Bounds add up, so neither can
//! starve the other.
//!
//! Invariants: a job that was taken in is run, also when nobody waits for it and when the pool is being
//! closed. A thread ends after `IDLE_ENDS_AFTER` without work, or once the pool is closed and its queue empty.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::io::{IoError, IoFuture, IoResult};

/// How long a thread waits for work before it ends.
const IDLE_ENDS_AFTER: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Which queue a job goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Reads, writes and what is as short as they are.
    Transfer,
    /// Syncs, and everything that touches names or allocation.
    Namespace,
}

/// Both queues. Dropping it closes them; jobs already taken in still run.
#[derive(Debug)]
pub(super) struct Pool {
    transfer: Arc<Queue>,
    namespace: Arc<Queue>,
}

impl Pool {
    pub(super) fn new(transfer: usize, namespace: usize) -> Self {
        Self {
            transfer: Arc::new(Queue::new("tonnage-io", transfer)),
            namespace: Arc::new(Queue::new("tonnage-sync", namespace)),
        }
    }

    /// Queues `operation` at once and returns a future of its result.
    pub(super) fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        operation: impl FnOnce() -> IoResult<T> + Send + 'static,
    ) -> IoFuture<T> {
        let queue = match lane {
            Lane::Transfer => &self.transfer,
            Lane::Namespace => &self.namespace,
        };
        let (done, result) = oneshot::channel();
        let queued = queue.submit(Box::new(move || {
            // The caller may have dropped its future; the operation and its buffers end here then.
            drop(done.send(operation()));
        }));
        Box::pin(async move {
            queued.map_err(IoError::NotAttempted)?;
            match result.await {
                Ok(result) => result,
                Err(lost) => Err(io::Error::other(lost).into()),
            }
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.transfer.close();
        self.namespace.close();
    }
}

struct Queue {
    name: &'static str,
    bound: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Queue")
            .field("name", &self.name)
            .field("bound", &self.bound)
            .field("threads", &state.threads)
            .field("idle", &state.idle)
            .field("waiting", &state.jobs.len())
            .finish_non_exhaustive()
    }
}

impl Queue {
    fn new(name: &'static str, bound: usize) -> Self {
        Self {
            name,
            bound: bound.max(1),
            state: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Takes a job in. Fails only where no thread runs and none can be started.
    fn submit(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        // A thread that was woken but has not run yet still counts as idle, and its job as waiting.
        if state.idle >= state.jobs.len() {
            self.wake.notify_one();
        } else if state.threads < self.bound {
            match self.start_thread() {
                Ok(()) => state.threads += 1,
                Err(refused) if state.threads == 0 => {
                    state.jobs.pop_back();
                    return Err(refused);
                }
                Err(_) => {} // the threads there are will come to it
            }
        }
        Ok(())
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let queue = Arc::clone(self);
        let thread = std::thread::Builder::new().name(self.name.to_owned());
        thread.spawn(move || queue.work()).map(drop)
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // A panic in a job is our own defect and was reported by the panic hook; its waiter gets an
            // error, and the jobs behind it still run.
            drop(catch_unwind(AssertUnwindSafe(job)));
        }
    }

    /// The next job; `None` ends the thread, which is no longer counted then.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            let waited = self.wake.wait_for(&mut state, IDLE_ENDS_AFTER);
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Far longer than anything here takes: a wait that would never end fails instead.
    const NEVER: Duration = Duration::from_secs(30);

    /// Guards: threads grow to the bound and not beyond, and what waits behind them is still run.
    #[test]
    fn threads_grow_on_demand_to_the_bound() {
        let queue = Arc::new(Queue::new("test", 3));
        let (started, starts) = mpsc::channel();
        let mut gates = Vec::new();
        for number in 0..5 {
            let (open, gate) = mpsc::channel::<()>();
            let started = started.clone();
            let job = move || {
                started.send(number).unwrap();
                gate.recv_timeout(2 * NEVER).unwrap();
            };
            queue.submit(Box::new(job)).unwrap();
            gates.push(open);
        }
        let mut first: Vec<i32> = (0..3)
            .map(|_| starts.recv_timeout(NEVER).unwrap())
            .collect();
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2]);
        assert_eq!(queue.state.lock().threads, 3);
        assert_eq!(queue.state.lock().jobs.len(), 2);
        for gate in gates {
            gate.send(()).unwrap();
        }
        let mut rest: Vec<i32> = (0..2)
            .map(|_| starts.recv_timeout(NEVER).unwrap())
            .collect();
        rest.sort_unstable();
        assert_eq!(rest, [3, 4]);
    }

    /// Guards: an operation whose future is dropped still runs, and keeps what it owns until its end.
    #[test]
    fn a_dropped_future_does_not_drop_the_operation() {
        let pool = Pool::new(1, 1);
        let (open, gate) = mpsc::channel::<()>();
        let (told, ends) = mpsc::channel();
        let owned = Arc::new(());
        let held = Arc::clone(&owned);
        drop(pool.run(Lane::Transfer, move || {
            gate.recv_timeout(2 * NEVER).unwrap();
            told.send(Arc::strong_count(&held)).unwrap();
            Ok(())
        }));
        drop(pool);
        open.send(()).unwrap();
        assert_eq!(ends.recv_timeout(NEVER).unwrap(), 2);
    }

    /// Guards: syncs that fill their lane do not keep a read from running.
    #[test]
    fn a_full_namespace_lane_leaves_transfers_alone() {
        let pool = Pool::new(1, 1);
        let (open, gate) = mpsc::channel::<()>();
        drop(pool.run(Lane::Namespace, move || {
            gate.recv_timeout(2 * NEVER).unwrap();
            Ok(())
        }));
        let (told, ran) = mpsc::channel();
        drop(pool.run(Lane::Transfer, move || {
            told.send(()).unwrap();
            Ok(())
        }));
        ran.recv_timeout(NEVER).unwrap();
        open.send(()).unwrap();
    }
}
