//! What works on the store in the background: which jobs run, how far they are, and how an operator stops them.
//!
//! Owns: [`Jobs`], the list of running jobs, and [`Job`], the handle by which one reports and is controlled. Refuses:
//! the work, and when it starts.
//!
//! Invariants: a job is listed from its beginning until its handle drops. It is paused and cancelled only at its own
//! checkpoints, between two steps, so a step is never left half done. A step that waits for something outside of the
//! store may end early ([`Job::stopped`]).

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::io::Clock;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Notify};

/// The kind of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Removes manifests that nothing keeps and blobs that nothing references.
    Collection,
    /// Copies live blobs out of mostly dead segments.
    Compaction,
    /// Reads and verifies blobs.
    Scrub,
    /// Fetches damaged blobs from another registry.
    Repair,
}

impl JobKind {
    /// Returns the name in commands and lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Collection => "collection",
            Self::Compaction => "compaction",
            Self::Scrub => "scrub",
            Self::Repair => "repair",
        }
    }

    /// Returns what its progress counts.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Collection => "suspects",
            Self::Compaction | Self::Scrub | Self::Repair => "bytes",
        }
    }
}

/// What an operator asks of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobControl {
    /// It waits after its current step.
    Pause,
    /// It continues after a pause.
    Resume,
    /// It ends after its current step.
    Cancel,
}

/// A running job at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobInfo {
    /// Its number, which no other job of this process has.
    pub id: u64,
    /// Its kind.
    pub kind: JobKind,
    /// When it began, in Unix ms.
    pub since_unix_ms: u64,
    /// How far it is, in units of its kind.
    pub done: u64,
    /// How far it has to go; 0 if that is not known.
    pub total: u64,
    /// Units done in a second, on average, without pauses.
    pub per_second: u64,
    /// Whether it waits for [`JobControl::Resume`].
    pub paused: bool,
}

/// The running jobs. Share by `Arc`.
#[derive(Debug)]
pub(crate) struct Jobs {
    clock: Arc<dyn Clock>,
    running: Mutex<BTreeMap<u64, Arc<State>>>,
    next: AtomicU64,
    closed: AtomicBool,
}

#[derive(Debug)]
struct State {
    kind: JobKind,
    since_unix_ms: u64,
    since: Duration,
    done: AtomicU64,
    total: AtomicU64,
    /// Milliseconds of ended pauses.
    paused_ms: AtomicU64,
    paused: AtomicBool,
    ended: AtomicBool,
    changed: Notify,
}

impl Jobs {
    /// Creates an empty list.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            running: Mutex::default(),
            next: AtomicU64::new(1),
            closed: AtomicBool::new(false),
        })
    }

    /// Adds a job, which is listed until the result drops.
    pub(crate) fn begin(self: &Arc<Self>, kind: JobKind) -> Job {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(State {
            kind,
            since_unix_ms: self.clock.wall_unix_ms(),
            since: self.clock.monotonic(),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            paused_ms: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            changed: Notify::new(),
        });
        self.running.lock().insert(id, Arc::clone(&state));
        let jobs = Arc::clone(self);
        Job { jobs, id, state }
    }

    /// Lists the running jobs in the order of their beginnings.
    pub(crate) fn list(&self) -> Vec<JobInfo> {
        let now = self.clock.monotonic();
        let running = self.running.lock();
        running.iter().map(|(id, job)| job.info(*id, now)).collect()
    }

    /// Pauses, resumes or cancels a job. Returns false if it does not run.
    pub(crate) fn control(&self, id: u64, control: JobControl) -> bool {
        let Some(state) = self.running.lock().get(&id).map(Arc::clone) else {
            return false;
        };
        match control {
            JobControl::Pause => state.paused.store(true, Ordering::Release),
            JobControl::Resume => state.paused.store(false, Ordering::Release),
            JobControl::Cancel => state.ended.store(true, Ordering::Release),
        }
        state.changed.notify_waiters();
        true
    }

    /// Ends all jobs at their next checkpoints, paused ones too, because the store closes.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let running: Vec<_> = self.running.lock().values().map(Arc::clone).collect();
        for state in running {
            state.changed.notify_waiters();
        }
    }
}

impl State {
    fn info(&self, id: u64, now: Duration) -> JobInfo {
        let done = self.done.load(Ordering::Relaxed);
        let paused_ms = self.paused_ms.load(Ordering::Relaxed);
        let elapsed = now.saturating_sub(self.since).as_millis();
        let active_ms = elapsed.saturating_sub(u128::from(paused_ms)).max(1);
        let per_second = u128::from(done) * 1000 / active_ms;
        JobInfo {
            id,
            kind: self.kind,
            since_unix_ms: self.since_unix_ms,
            done,
            total: self.total.load(Ordering::Relaxed),
            per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
            paused: self.paused.load(Ordering::Acquire),
        }
    }
}

/// A running job. It is no longer listed once this drops.
#[derive(Debug)]
pub struct Job {
    jobs: Arc<Jobs>,
    id: u64,
    state: Arc<State>,
}

impl Job {
    /// Returns its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Sets how far the job has to go.
    pub fn set_total(&self, total: u64) {
        self.state.total.store(total, Ordering::Relaxed);
    }

    /// Adds units that are done.
    pub fn progress(&self, units: u64) {
        self.state.done.fetch_add(units, Ordering::Relaxed);
    }

    /// Waits while the job is paused. Call it between two steps, without a lock.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if an operator cancelled the job, [`Error::Closed`] if the store closes.
    pub async fn checkpoint(&self) -> Result<()> {
        let clock = &self.jobs.clock;
        let began = clock.monotonic();
        let mut waited = false;
        loop {
            // Enabled before the flags are read, so that no change is missed.
            let mut changed = pin!(self.state.changed.notified());
            changed.as_mut().enable();
            if let Some(why) = self.end() {
                return Err(why);
            }
            if !self.state.paused.load(Ordering::Acquire) {
                break;
            }
            waited = true;
            changed.await;
        }
        if waited {
            let pause = clock.monotonic().saturating_sub(began).as_millis();
            let pause = u64::try_from(pause).unwrap_or(u64::MAX);
            self.state.paused_ms.fetch_add(pause, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Resolves once the job must end, to the reason: for a job that waits inside a step for something else.
    pub async fn stopped(&self) -> Error {
        loop {
            let mut changed = pin!(self.state.changed.notified());
            changed.as_mut().enable();
            if let Some(why) = self.end() {
                return why;
            }
            changed.await;
        }
    }

    /// Returns why the job must end, if it must.
    fn end(&self) -> Option<Error> {
        if self.jobs.closed.load(Ordering::Acquire) {
            return Some(Error::Closed);
        }
        let cancelled = self.state.ended.load(Ordering::Acquire);
        cancelled.then_some(Error::Cancelled)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.jobs.running.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::io::test_env;

    /// Guards: a job is listed while it runs. A pause stops it at its next checkpoint until it is resumed, a
    /// cancellation ends it, and the end of the store ends a paused one.
    #[test]
    fn jobs_stop_at_their_checkpoints() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap();
        let _entered = runtime.enter();
        let jobs = Jobs::new(test_env::env().clock);
        let (first, second) = (jobs.begin(JobKind::Scrub), jobs.begin(JobKind::Scrub));
        first.set_total(10);
        first.progress(4);
        let listed = jobs.list();
        assert_eq!((listed[0].done, listed[0].total, listed.len()), (4, 10, 2));
        first.checkpoint().now_or_never().unwrap().unwrap();
        assert!(jobs.control(first.id(), JobControl::Pause));
        let mut paused = Box::pin(first.checkpoint());
        assert!(paused.as_mut().now_or_never().is_none());
        assert!(jobs.list()[0].paused);
        jobs.control(first.id(), JobControl::Resume);
        paused.now_or_never().unwrap().unwrap();
        jobs.control(first.id(), JobControl::Cancel);
        assert!(first.stopped().now_or_never().is_some());
        let ended = first.checkpoint().now_or_never();
        assert!(matches!(ended, Some(Err(Error::Cancelled))));
        drop(first);
        assert!(!jobs.control(1, JobControl::Pause));
        jobs.control(second.id(), JobControl::Pause);
        let mut paused = Box::pin(second.checkpoint());
        assert!(paused.as_mut().now_or_never().is_none());
        jobs.close();
        assert!(matches!(paused.now_or_never(), Some(Err(Error::Closed))));
    }
}
