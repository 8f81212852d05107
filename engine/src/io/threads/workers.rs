//! Threads that run jobs from one queue, the most urgent job first, those of one urgency by client in turn.
//!
//! Owns: [`Workers`]. Refuses: knowing what a job does.
//!
//! Invariants: a submitted job runs, also when its waiter was dropped or the queue is being closed. Of the jobs of one
//! urgency, each client's run in the order in which they were submitted, and clients take turns, so one with many jobs
//! delays the next job of another by one turn. Kept threads are started with the queue and end with it, so that a
//! limit on threads that is reached later does not stop it. Other threads are started on demand and end after
//! `IDLE_ENDS_AFTER` without work.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::time_slice::shorten_time_slice;
use crate::client_turns::ClientTurns;
use crate::vocabulary::ClientId;

/// How long a thread that is not kept waits for work before it ends.
const IDLE_ENDS_AFTER: Duration = Duration::from_secs(10);
/// How much nicer nice threads are than the others: one gets about a tenth of the time that a thread on the same
/// processor gets, if both have work (`sched(7)`).
const NICENESS: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// A queue of jobs and its threads. Dropping it closes the queue; jobs already submitted still run.
#[derive(Debug)]
pub struct Workers {
    queue: Arc<Queue>,
}

impl Workers {
    /// Starts `kept` threads, at least one, that stay. Together with those started on demand there are at most `bound`.
    /// If only some of the kept threads can be started, it continues with these and logs a warning.
    ///
    /// # Errors
    /// Not even one thread can be started.
    ///
    /// # Panics
    /// If `name` has more than 15 bytes, which the kernel would cut.
    pub fn start(name: &'static str, kept: usize, bound: usize) -> io::Result<Self> {
        Self::start_with(name, kept, bound, Priority::Usual)
    }

    /// The same with threads that run sooner after they wake: for short work that clients wait for.
    ///
    /// # Errors
    /// Not even one thread can be started.
    ///
    /// # Panics
    /// If `name` has more than 15 bytes.
    pub fn start_prompt(name: &'static str, kept: usize, bound: usize) -> io::Result<Self> {
        Self::start_with(name, kept, bound, Priority::Prompt)
    }

    /// The same with threads that leave most of a processor to others that have work: for long computations beside
    /// short work that clients wait for.
    ///
    /// # Errors
    /// Not even one thread can be started.
    ///
    /// # Panics
    /// If `name` has more than 15 bytes.
    pub fn start_nice(name: &'static str, kept: usize, bound: usize) -> io::Result<Self> {
        Self::start_with(name, kept, bound, Priority::Nice)
    }

    fn start_with(
        name: &'static str,
        kept: usize,
        bound: usize,
        priority: Priority,
    ) -> io::Result<Self> {
        assert!(name.len() <= 15, "the kernel cuts {name:?}");
        let kept = kept.max(1);
        let queue = Arc::new(Queue {
            name,
            kept,
            bound: bound.max(kept),
            priority,
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let workers = Self { queue };
        let mut state = workers.queue.state.lock();
        while state.threads < kept {
            match workers.queue.start_thread() {
                Ok(()) => state.threads += 1,
                Err(refused) if state.threads == 0 => return Err(refused),
                Err(refused) => {
                    let (threads, kept) = (state.threads, kept);
                    tracing::warn!(%refused, name, threads, kept, "fewer threads could be started than wanted; the queue continues with these");
                    break;
                }
            }
        }
        drop(state);
        Ok(workers)
    }

    /// Submits a job of `client`. Jobs with a lower `urgency` run before it, also if they are submitted later.
    pub fn submit(&self, urgency: u8, client: ClientId, job: impl FnOnce() + Send + 'static) {
        self.queue.submit(urgency, client, Box::new(job));
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.state.lock().closed = true;
        self.queue.wake.notify_all();
    }
}

/// How threads compete for the processors.
#[derive(Debug, Clone, Copy)]
enum Priority {
    Usual,
    /// They run sooner after they wake.
    Prompt,
    /// They leave most of a processor to others.
    Nice,
}

struct Queue {
    name: &'static str,
    kept: usize,
    bound: usize,
    priority: Priority,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// The waiting jobs, by urgency, of which there are few.
    jobs: BTreeMap<u8, ClientTurns<Job>>,
    waiting: usize,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl State {
    /// Takes the job that runs next.
    fn take(&mut self) -> Option<Job> {
        let job = self.jobs.values_mut().find_map(ClientTurns::pop);
        self.waiting -= usize::from(job.is_some());
        job
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Queue")
            .field("name", &self.name)
            .field("bound", &self.bound)
            .field("threads", &state.threads)
            .field("idle", &state.idle)
            .field("waiting", &state.waiting)
            .finish_non_exhaustive()
    }
}

impl Queue {
    fn submit(self: &Arc<Self>, urgency: u8, client: ClientId, job: Job) {
        let mut state = self.state.lock();
        state.jobs.entry(urgency).or_default().push(client, job);
        state.waiting += 1;
        // A thread that was woken but does not run yet still counts as idle, and its job as waiting.
        if state.idle >= state.waiting {
            self.wake.notify_one();
        } else if state.threads < self.bound && self.start_thread().is_ok() {
            state.threads += 1;
        }
        // Otherwise the existing threads will run it.
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let queue = Arc::clone(self);
        let thread = std::thread::Builder::new().name(self.name.to_owned());
        thread.spawn(move || queue.work()).map(drop)
    }

    fn work(&self) {
        match self.priority {
            Priority::Usual => {}
            Priority::Prompt => shorten_time_slice(),
            Priority::Nice => {
                // Of this thread alone, on Linux.
                if let Err(error) = rustix::process::nice(NICENESS) {
                    let name = self.name;
                    tracing::debug!(%error, name, "the priority of a thread could not be lowered; continuing without");
                }
            }
        }
        while let Some(job) = self.next() {
            // A panic in a job is a defect, which the panic hook reported. The job's waiter gets an error, and the next
            // jobs still run.
            drop(catch_unwind(AssertUnwindSafe(job)));
        }
    }

    /// Returns the next job. `None` ends the thread, which is then no longer counted.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.take() {
                return Some(job);
            }
            if state.closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            let timed_out = if state.threads > self.kept {
                self.wake.wait_for(&mut state, IDLE_ENDS_AFTER).timed_out()
            } else {
                self.wake.wait(&mut state);
                false
            };
            state.idle -= 1;
            if timed_out && state.waiting == 0 && state.threads > self.kept {
                state.threads -= 1;
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Far longer than anything here takes: a wait that would never end fails instead.
    const NEVER: Duration = Duration::from_secs(30);

    /// A job that says when it runs and then waits for its gate.
    fn gated(
        workers: &Workers,
        (urgency, client): (u8, u128),
        number: i32,
        started: &mpsc::Sender<i32>,
    ) -> mpsc::Sender<()> {
        let (open, gate) = mpsc::channel::<()>();
        let started = started.clone();
        workers.submit(urgency, ClientId(client), move || {
            started.send(number).unwrap();
            // An error once the gate is dropped, which opens it as well.
            gate.recv_timeout(2 * NEVER).unwrap_or_default();
        });
        open
    }

    /// Guards: threads grow to the bound and not beyond, and jobs that wait for them still run.
    #[test]
    fn threads_grow_on_demand_to_the_bound() {
        let workers = Workers::start("test", 1, 3).unwrap();
        let (started, starts) = mpsc::channel();
        let gates: Vec<_> = (0..5)
            .map(|number| gated(&workers, (0, 0), number, &started))
            .collect();
        let next = |count: usize| {
            let mut numbers: Vec<_> = (0..count)
                .map(|_| starts.recv_timeout(NEVER).unwrap())
                .collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(next(3), [0, 1, 2]);
        assert_eq!(workers.queue.state.lock().threads, 3);
        assert_eq!(workers.queue.state.lock().waiting, 2);
        for gate in gates {
            gate.send(()).unwrap();
        }
        assert_eq!(next(2), [3, 4]);
    }

    /// Guards: nice threads are nicer than the others of the process, which stay as they are.
    #[test]
    fn nice_threads_are_nicer() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let ask = |workers: &Workers| {
            let (answer, answered) = mpsc::channel();
            workers.submit(0, ClientId::ENGINE, move || {
                answer.send(niceness()).unwrap();
            });
            answered.recv_timeout(NEVER).unwrap()
        };
        let nice = Workers::start_nice("test", 1, 1).unwrap();
        assert_eq!(ask(&nice), (niceness() + NICENESS).min(19));
        assert_eq!(ask(&Workers::start("test", 1, 1).unwrap()), niceness());
    }

    /// Returns the order in which one thread runs jobs, each given as (urgency, client, number).
    fn order_of(jobs: &[(u8, u128, i32)]) -> Vec<i32> {
        let workers = Workers::start("test", 1, 1).unwrap();
        let (started, starts) = mpsc::channel();
        let gate = gated(&workers, (9, 0), 0, &started);
        assert_eq!(starts.recv_timeout(NEVER).unwrap(), 0);
        for (urgency, client, number) in jobs {
            drop(gated(&workers, (*urgency, *client), *number, &started));
        }
        gate.send(()).unwrap();
        let next = |_: &_| starts.recv_timeout(NEVER).unwrap();
        jobs.iter().map(next).collect()
    }

    /// Guards: of the waiting jobs, the most urgent runs first, and of equals of one client the one that was submitted
    /// first.
    #[test]
    fn the_most_urgent_job_runs_first() {
        let jobs = [(5, 0, 4), (1, 0, 2), (5, 0, 5), (0, 0, 1), (1, 0, 3)];
        assert_eq!(order_of(&jobs), [1, 2, 3, 4, 5]);
    }

    /// Guards: clients take turns, so one with many jobs does not keep those of another waiting.
    #[test]
    fn clients_take_turns() {
        let of_one = [(0, 1, 1), (0, 1, 3), (0, 1, 5), (0, 1, 6)];
        let of_another = [(0, 2, 2), (0, 2, 4)];
        let order = order_of(&[of_one.as_slice(), &of_another].concat());
        assert_eq!(order, [1, 2, 3, 4, 5, 6]);
    }
}
