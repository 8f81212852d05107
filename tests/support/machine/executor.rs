//! The seeded executor: one thread, and the only place that decides what happens next.
//!
//! Owns: [`Executor`]. The engine and the disk use it through [`Handle`].
//! Refuses: real time and threads.
//!
//! Invariants:
//! - Each step picks a ready task, a computation or an I/O operation. Time advances only if there is none of these, to
//!   the next timer.
//! - No waker, task, computation or completion runs or is dropped while the lock of the state is held.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Formatter, Write as _};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonnage_engine::io::TaskFuture;

use super::handle::Handle;
use super::prng::Prng;

/// The id of the future given to `block_on`; tasks are counted from 1.
const ROOT: u64 = 0;
/// More steps than any test needs. A longer run counts as an endless loop.
const STEPS_MAX: u64 = 50_000_000;

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// How a run that may be cut off ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The future resolved before the machine was stopped.
    Finished(T),
    /// The machine was stopped; all tasks were dropped.
    Crashed,
}

/// The executor: it runs futures, and drops every task when it is dropped.
pub struct Executor {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    prng: Prng,
    pub(super) entropy: Prng,
    pub(super) now: Duration,
    steps: u64,
    last_id: u64,
    pub(super) tasks: BTreeMap<u64, Task>,
    pub(super) ready: BTreeSet<u64>,
    pub(super) jobs: Vec<Job>,
    pub(super) operations: Vec<Job>,
    pub(super) timers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    /// Set by a crash or the end; nothing is accepted any more.
    pub(super) stopped: bool,
}

pub(super) struct Task {
    pub(super) name: &'static str,
    /// Taken while the task is polled.
    pub(super) future: Option<TaskFuture>,
}

/// The action of one step.
enum Step {
    Root,
    Task(u64, TaskFuture),
    Run(Job),
    Fire(oneshot::Sender<()>),
    Nothing,
}

impl Executor {
    /// Creates a machine whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State {
            prng: Prng::new(seed),
            entropy: Prng::new(seed ^ 0x7261_6e64_6f6d_6e65),
            now: Duration::from_secs(1000),
            steps: 0,
            last_id: ROOT,
            tasks: BTreeMap::new(),
            ready: BTreeSet::new(),
            jobs: Vec::new(),
            operations: Vec::new(),
            timers: BTreeMap::new(),
            stopped: false,
        };
        Self {
            shared: Arc::new(Shared {
                seed,
                state: Mutex::new(state),
            }),
        }
    }

    /// Returns the seed, for messages.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// Returns the handle for tasks.
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Runs until `future` resolves. Tasks that it spawned continue in the next call. Panics on a deadlock, and if the
    /// disk stops the machine.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self.run_until_crash(future) {
            Outcome::Finished(output) => output,
            Outcome::Crashed => {
                panic!(
                    "the machine was stopped (seed {}); expect it with run_until_crash",
                    self.seed()
                )
            }
        }
    }

    /// Runs until `future` resolves or the disk stops the machine. Then all tasks are dropped, and nothing runs any
    /// more. Panics on a deadlock.
    pub fn run_until_crash<F: Future>(&self, future: F) -> Outcome<F::Output> {
        let _note = SeedNote(self.seed());
        let mut root = pin!(future);
        self.shared.state.lock().ready.insert(ROOT);
        loop {
            match self.shared.step(true) {
                Step::Root => {
                    if let Poll::Ready(output) = self.shared.poll(ROOT, root.as_mut()) {
                        return Outcome::Finished(output);
                    }
                }
                Step::Nothing if self.shared.state.lock().stopped => break,
                Step::Nothing => panic!("{}", self.shared.describe_deadlock()),
                step => self.shared.carry_out(step),
            }
        }
        self.shared.stop();
        Outcome::Crashed
    }

    /// Runs until nothing is left to do without advancing time.
    pub fn settle(&self) {
        let _note = SeedNote(self.seed());
        loop {
            match self.shared.step(false) {
                Step::Nothing => return,
                step => self.shared.carry_out(step),
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    /// Chooses the next step.
    fn step(&self, may_move_time: bool) -> Step {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.stopped {
            return Step::Nothing;
        }
        state.steps += 1;
        assert!(
            state.steps < STEPS_MAX,
            "no end after {STEPS_MAX} steps (seed {})",
            self.seed
        );
        let (ready, jobs) = (state.ready.len(), state.jobs.len());
        let choices = ready + jobs + state.operations.len();
        if choices == 0 {
            return if may_move_time {
                state.next_timer()
            } else {
                Step::Nothing
            };
        }
        let choice = state.prng.below(choices);
        if choice >= ready + jobs {
            return Step::Run(state.operations.swap_remove(choice - ready - jobs));
        }
        if choice >= ready {
            return Step::Run(state.jobs.swap_remove(choice - ready));
        }
        let id = *state
            .ready
            .iter()
            .nth(choice)
            .expect("the choice is below their number");
        state.ready.remove(&id);
        if id == ROOT {
            return Step::Root;
        }
        match state.tasks.get_mut(&id).and_then(|task| task.future.take()) {
            Some(future) => Step::Task(id, future),
            None => Step::Run(Box::new(|| {})), // woken after its end
        }
    }

    fn carry_out(self: &Arc<Self>, step: Step) {
        match step {
            Step::Task(id, mut future) => match self.poll(id, future.as_mut()) {
                Poll::Ready(()) => drop(self.state.lock().tasks.remove(&id)),
                Poll::Pending => {
                    let mut state = self.state.lock();
                    match state.tasks.get_mut(&id) {
                        Some(task) => task.future = Some(future),
                        None => {
                            drop(state);
                            drop(future); // the machine stopped meanwhile
                        }
                    }
                }
            },
            Step::Run(job) => job(),
            Step::Fire(timer) => drop(timer.send(())),
            Step::Root | Step::Nothing => {}
        }
    }

    fn poll<F: Future + ?Sized>(self: &Arc<Self>, id: u64, future: Pin<&mut F>) -> Poll<F::Output> {
        let waker = Waker::from(Arc::new(TaskWaker {
            shared: Arc::downgrade(self),
            id,
        }));
        future.poll(&mut Context::from_waker(&waker))
    }

    /// Drops all tasks and operations.
    fn stop(&self) {
        self.state.lock().stopped = true;
        let mut state = self.state.lock();
        let tasks = std::mem::take(&mut state.tasks);
        let jobs = std::mem::take(&mut state.jobs);
        let operations = std::mem::take(&mut state.operations);
        let timers = std::mem::take(&mut state.timers);
        drop(state);
        drop((tasks, jobs, operations, timers));
    }

    fn describe_deadlock(&self) -> String {
        let state = self.state.lock();
        let mut text = format!(
            "deadlock at {:?} (seed {}): nothing is ready, no I/O is under way and no timer is set; \
             waiting: the future given to block_on",
            state.now, self.seed
        );
        for (id, task) in &state.tasks {
            write!(text, ", task {id} \"{}\"", task.name).expect("writing to a string");
        }
        text
    }
}

impl State {
    fn next_timer(&mut self) -> Step {
        match self.timers.pop_first() {
            Some(((at, _), timer)) => {
                self.now = self.now.max(at);
                Step::Fire(timer)
            }
            None => Step::Nothing,
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

struct TaskWaker {
    shared: Weak<Shared>,
    id: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.state.lock().ready.insert(self.id);
        }
    }
}

/// Prints the seed if a test panics.
struct SeedNote(u64);

impl Drop for SeedNote {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulated machine: seed {}", self.0);
        }
    }
}

impl Debug for Executor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.handle().fmt(f)
    }
}
