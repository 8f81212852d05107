//! What works on the store in the background: which jobs run, how far they are, and how an operator stops them.
//!
//! Owns: [`Jobs`], the list of running jobs, and [`Job`], the handle by which one reports and is controlled. Refuses:
//! the work, and when it starts.
//!
//! Invariants: a job is listed from its beginning until the last clone of its handle drops. It is paused and cancelled
//! only at its own checkpoints, between two steps, so a step is never left half done. A step that waits for something
//! else may end early ([`Job::stopped`]).

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{Either, select};

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
    /// It waits after its current step. One that the store repeats by itself ends its cycle instead, and begins the
    /// next after [`JobControl::Resume`].
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
    since_unix_ms: u64,
    phase: Mutex<Phase>,
    done: AtomicU64,
    total: AtomicU64,
    /// Whether a pause ends the work instead of halting it.
    is_repeated: bool,
    paused: AtomicBool,
    ended: AtomicBool,
    changed: Notify,
}

/// The part of a job that its progress counts.
#[derive(Debug)]
struct Phase {
    kind: JobKind,
    since: Duration,
    /// Milliseconds of ended pauses.
    paused_ms: u64,
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

    /// Adds a job, which is listed until the last clone of the result drops.
    pub(crate) fn begin(self: &Arc<Self>, kind: JobKind) -> Job {
        self.add(kind, false)
    }

    /// Adds a job of a task that repeats its work: a pause ends it with [`Error::Paused`], so that it holds nothing.
    pub(crate) fn begin_repeated(self: &Arc<Self>, kind: JobKind) -> Job {
        self.add(kind, true)
    }

    fn add(self: &Arc<Self>, kind: JobKind, is_repeated: bool) -> Job {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(State {
            since_unix_ms: self.clock.wall_unix_ms(),
            phase: Mutex::new(Phase {
                kind,
                since: self.clock.monotonic(),
                paused_ms: 0,
            }),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            is_repeated,
            paused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            changed: Notify::new(),
        });
        self.running.lock().insert(id, Arc::clone(&state));
        let jobs = Arc::clone(self);
        Job(Arc::new(Listed { jobs, id, state }))
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
        let phase = self.phase.lock();
        let elapsed = now.saturating_sub(phase.since).as_millis();
        let active_ms = elapsed.saturating_sub(u128::from(phase.paused_ms)).max(1);
        let per_second = u128::from(done) * 1000 / active_ms;
        JobInfo {
            id,
            kind: phase.kind,
            since_unix_ms: self.since_unix_ms,
            done,
            total: self.total.load(Ordering::Relaxed),
            per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
            paused: self.paused.load(Ordering::Acquire),
        }
    }
}

/// A running job. It is no longer listed once its last clone drops.
#[derive(Debug, Clone)]
pub struct Job(Arc<Listed>);

#[derive(Debug)]
struct Listed {
    jobs: Arc<Jobs>,
    id: u64,
    state: Arc<State>,
}

impl Job {
    /// Returns its number.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Sets how far the job has to go.
    pub fn set_total(&self, total: u64) {
        self.0.state.total.store(total, Ordering::Relaxed);
    }

    /// Adds units that are done.
    pub fn progress(&self, units: u64) {
        self.0.state.done.fetch_add(units, Ordering::Relaxed);
    }

    /// Continues with work of a kind, whose progress begins at 0.
    pub(crate) fn begin_phase(&self, kind: JobKind) {
        let state = &self.0.state;
        *state.phase.lock() = Phase {
            kind,
            since: self.0.jobs.clock.monotonic(),
            paused_ms: 0,
        };
        state.done.store(0, Ordering::Relaxed);
        state.total.store(0, Ordering::Relaxed);
    }

    /// Waits while the job is paused. Call it between two steps, without a lock that others need.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if an operator cancelled the job, [`Error::Closed`] if the store closes. [`Error::Paused`]
    /// instead of a wait if the store repeats the job by itself.
    pub async fn checkpoint(&self) -> Result<()> {
        if let Some(why) = self.end() {
            return Err(why);
        }
        if !self.is_paused() {
            return Ok(());
        }
        if self.0.state.is_repeated {
            return Err(Error::Paused);
        }
        let clock = &self.0.jobs.clock;
        let began = clock.monotonic();
        self.resumed().await?;
        let pause = clock.monotonic().saturating_sub(began).as_millis();
        let pause = u64::try_from(pause).unwrap_or(u64::MAX);
        let mut phase = self.0.state.phase.lock();
        phase.paused_ms = phase.paused_ms.saturating_add(pause);
        Ok(())
    }

    /// Returns whether the job is paused and was not cancelled.
    pub(crate) fn is_paused(&self) -> bool {
        let State { paused, ended, .. } = &*self.0.state;
        paused.load(Ordering::Acquire) && !ended.load(Ordering::Acquire)
    }

    /// Waits until the job is not paused.
    ///
    /// # Errors
    /// As [`Job::checkpoint`] if it must end.
    pub(crate) async fn resumed(&self) -> Result<()> {
        loop {
            // Enabled before the flags are read, so that no change is missed.
            let mut changed = pin!(self.0.state.changed.notified());
            changed.as_mut().enable();
            if let Some(why) = self.end() {
                return Err(why);
            }
            if !self.is_paused() {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Resolves once the job must end, to the reason: for a job that waits inside a step for something else.
    pub async fn stopped(&self) -> Error {
        loop {
            let mut changed = pin!(self.0.state.changed.notified());
            changed.as_mut().enable();
            if let Some(why) = self.end() {
                return why;
            }
            changed.await;
        }
    }

    /// Waits for `event`, unless the job must end before.
    ///
    /// # Errors
    /// As [`Job::checkpoint`] if it must end.
    pub async fn unless_stopped<T>(&self, event: impl Future<Output = T>) -> Result<T> {
        match select(pin!(event), pin!(self.stopped())).await {
            Either::Left((event, _)) => Ok(event),
            Either::Right((why, _)) => Err(why),
        }
    }

    /// Returns why the job must end, if it must.
    fn end(&self) -> Option<Error> {
        if self.0.jobs.closed.load(Ordering::Acquire) {
            return Some(Error::Closed);
        }
        let cancelled = self.0.state.ended.load(Ordering::Acquire);
        cancelled.then_some(Error::Cancelled)
    }
}

impl Drop for Listed {
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

    /// Guards: a pause ends the work of a job that the store repeats, which stays listed as paused until it is resumed.
    /// A job of two phases has one number, and counts each phase from 0.
    #[test]
    fn a_pause_ends_work_that_is_repeated() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap();
        let _entered = runtime.enter();
        let jobs = Jobs::new(test_env::env().clock);
        let job = jobs.begin_repeated(JobKind::Collection);
        let work = job.clone();
        work.progress(3);
        assert!(jobs.control(job.id(), JobControl::Pause));
        let ended = work.checkpoint().now_or_never();
        assert!(matches!(ended, Some(Err(Error::Paused))));
        drop(work);
        assert!(jobs.list()[0].paused);
        let mut resumed = Box::pin(job.resumed());
        assert!(resumed.as_mut().now_or_never().is_none());
        jobs.control(job.id(), JobControl::Resume);
        resumed.now_or_never().unwrap().unwrap();
        job.begin_phase(JobKind::Compaction);
        let listed = &jobs.list()[0];
        assert_eq!((listed.id, listed.done), (job.id(), 0));
        assert_eq!(listed.kind, JobKind::Compaction);
        drop(job);
        assert!(jobs.list().is_empty());
    }
}
