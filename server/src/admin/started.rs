//! Jobs that operators start.
//!
//! Owns: [`StartedJobs`]: which job of a kind runs for a request, and the results of the last ones; [`StartedJob`] and
//! [`JobState`], the answers about them. Refuses: the work.
//!
//! Invariants: one job of a kind runs at a time. A result is kept before its job ends, so a job that is no longer
//! listed has one. Memory is bounded, and the requests of one kind never displace the results of another. A request is
//! forgotten when its job ends, because it may contain a secret.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tonnage_engine::{Error, Job, JobKind, Store};

use super::error::AdminError;
use super::jobs::JobEntry;

/// Results of a kind that are kept.
const KEPT_MAX: usize = 8;

/// A job that runs as a request asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedJob {
    /// Its number.
    pub job: u64,
    /// Whether an earlier request for the same started it.
    pub joined: bool,
}

/// The state of a job that an operator started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState<T> {
    /// It runs, or is paused.
    Running {
        /// How far it is.
        entry: JobEntry,
        /// What it did so far, without lists, if its kind says so.
        so_far: Option<T>,
    },
    /// It is complete.
    Complete(T),
    /// It ended early.
    Failed {
        /// Why.
        why: String,
        /// Whether an operator cancelled it.
        cancelled: bool,
        /// What it did before, if its kind says so.
        so_far: Option<T>,
    },
    /// No such job is known: the server was restarted, or the result is too old.
    Unknown,
}

impl<T> JobState<T> {
    /// Returns the state of a job that ended.
    pub(super) fn ended(result: Result<T, Error>) -> Self {
        match result {
            Ok(done) => Self::Complete(done),
            Err(error) => Self::failed(&error, None),
        }
    }

    /// Returns the state of a job that ended early.
    pub(super) fn failed(error: &Error, so_far: Option<T>) -> Self {
        Self::Failed {
            why: error.to_string(),
            cancelled: matches!(error, Error::Cancelled),
            so_far,
        }
    }
}

/// The jobs of a kind that operators started, each from a request `R` to a result `T`. Clones share them.
pub(super) struct StartedJobs<R, T> {
    store: Store,
    kept: Arc<Mutex<Vec<Started<R, T>>>>,
}

/// A job that an operator started.
struct Started<R, T> {
    job: u64,
    state: Progress<R, T>,
}

enum Progress<R, T> {
    Running {
        request: R,
        so_far: Box<dyn Fn() -> Option<T> + Send>,
    },
    Ended {
        state: JobState<T>,
        /// Whether a client got it.
        fetched: bool,
    },
}

impl<R, T> StartedJobs<R, T>
where
    R: PartialEq + Send + 'static,
    T: Clone + Send + 'static,
{
    /// Creates an empty list for the jobs of a store.
    pub(super) fn new(store: Store) -> Self {
        let kept = Arc::default();
        Self { store, kept }
    }

    /// Returns the store.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Starts `work` beside all other work, as a job of `kind`. If one runs that was asked for the same, there is no
    /// second one. `so_far` says what it did, while it runs.
    ///
    /// # Errors
    /// [`AdminError::Runs`] if one runs that was asked for something else.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn start<W>(
        &self,
        kind: JobKind,
        request: R,
        so_far: impl Fn() -> Option<T> + Send + 'static,
        work: impl FnOnce(Job) -> W,
    ) -> Result<StartedJob, AdminError>
    where
        W: Future<Output = JobState<T>> + Send + 'static,
    {
        let mut kept = self.kept.lock();
        if let Some((job, same)) = running(&kept, &self.store, &request) {
            if same {
                return Ok(StartedJob { job, joined: true });
            }
            let name = kind.name();
            return Err(AdminError::Runs { name, job });
        }
        make_room(&mut kept);
        let job = self.store.begin_job(kind);
        let id = job.id();
        kept.push(Started {
            job: id,
            state: Progress::Running {
                request,
                so_far: Box::new(so_far),
            },
        });
        drop(kept);
        tracing::info!(job = id, name = kind.name(), "the operator started a job");
        let (kept, work) = (Arc::clone(&self.kept), work(job.clone()));
        tokio::spawn(async move {
            let state = work.await;
            if let JobState::Failed { why, .. } = &state {
                let name = kind.name();
                tracing::warn!(
                    job = id,
                    name,
                    why,
                    "a job that the operator started ended early"
                );
            }
            if let Some(one) = kept.lock().iter_mut().find(|one| one.job == id) {
                let fetched = false;
                one.state = Progress::Ended { state, fetched };
            }
            // After its result is kept.
            drop(job);
        });
        Ok(StartedJob {
            job: id,
            joined: false,
        })
    }

    /// Returns the state of a job.
    pub(super) fn get(&self, job: u64) -> JobState<T> {
        // In this order: a result is kept before its job ends.
        let entry = self.store.jobs().into_iter().find(|one| one.id == job);
        let mut kept = self.kept.lock();
        let started = kept.iter_mut().find(|one| one.job == job);
        match (started.map(|one| &mut one.state), entry) {
            (Some(Progress::Ended { state, fetched }), _) => {
                *fetched = true;
                state.clone()
            }
            (Some(Progress::Running { so_far, .. }), Some(entry)) => JobState::Running {
                entry: entry.into(),
                so_far: so_far(),
            },
            // A job without a result that is not listed has panicked.
            (None, _) | (Some(Progress::Running { .. }), None) => JobState::Unknown,
        }
    }
}

/// Returns the number of the job that runs, and whether it does what `request` asks for.
fn running<R: PartialEq, T>(
    kept: &[Started<R, T>],
    store: &Store,
    request: &R,
) -> Option<(u64, bool)> {
    let listed = store.jobs();
    kept.iter().find_map(|one| match &one.state {
        Progress::Running { request: other, .. } => {
            let runs = listed.iter().any(|job| job.id == one.job);
            runs.then(|| (one.job, other == request))
        }
        Progress::Ended { .. } => None,
    })
}

/// Removes a result if there are too many: one that a client got already, else the oldest.
fn make_room<R, T>(kept: &mut Vec<Started<R, T>>) {
    if kept.len() < KEPT_MAX {
        return;
    }
    let was_fetched =
        |one: &Started<R, T>| matches!(&one.state, Progress::Ended { fetched: true, .. });
    kept.remove(kept.iter().position(was_fetched).unwrap_or_default());
}

impl<R, T> Clone for StartedJobs<R, T> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            kept: Arc::clone(&self.kept),
        }
    }
}

impl<R, T> fmt::Debug for StartedJobs<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.lock();
        let jobs: Vec<_> = kept.iter().map(|one| one.job).collect();
        f.debug_tuple("StartedJobs").field(&jobs).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tonnage_engine::Options;

    use super::*;
    use crate::runtime;

    async fn open(path: &std::path::Path) -> Store {
        let opened = Store::open(runtime::env().unwrap(), path, Options::default());
        opened.await.unwrap().0
    }

    fn start(jobs: &StartedJobs<u32, u32>, request: u32) -> Result<StartedJob, AdminError> {
        let work = move |_: Job| async move { JobState::Complete(request) };
        jobs.start(JobKind::Scrub, request, || None, work)
    }

    /// Waits for the end of a job, without asking for its result.
    async fn ended(store: &Store, job: u64) {
        while store.jobs().iter().any(|one| one.id == job) {
            tokio::task::yield_now().await;
        }
    }

    /// Guards: while a job runs, a request for the same joins it, and one for something else is refused with its
    /// number. What it did so far can be seen. After its end there is its result, and another one may start.
    #[tokio::test]
    async fn one_job_of_a_kind_runs() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        let jobs = StartedJobs::new(store.clone());
        let (end, waits) = oneshot::channel::<()>();
        let work = |job: Job| async move {
            waits.await.unwrap();
            drop(job);
            JobState::Complete(7)
        };
        let first = jobs.start(JobKind::Scrub, 1, || Some(3), work).unwrap();
        assert!(!first.joined);
        let JobState::Running { entry, so_far } = jobs.get(first.job) else {
            panic!("it runs")
        };
        assert_eq!((entry.id, so_far), (first.job, Some(3)));
        let second = start(&jobs, 1).unwrap();
        assert_eq!((second.job, second.joined), (first.job, true));
        let other = start(&jobs, 2).unwrap_err().to_string();
        assert!(
            other.contains(&format!("scrub {} runs already", first.job)),
            "{other}"
        );
        // Those of another kind are not concerned.
        let others = StartedJobs::new(store.clone());
        let repair = others.start(
            JobKind::Repair,
            2,
            || None,
            |_| async { JobState::Complete(()) },
        );
        assert!(!repair.unwrap().joined);

        end.send(()).unwrap();
        ended(&store, first.job).await;
        assert_eq!(jobs.get(first.job), JobState::Complete(7));
        let third = start(&jobs, 2).unwrap();
        assert!(!third.joined && third.job != first.job);
        ended(&store, third.job).await;
        store.close().await.unwrap();
    }

    /// Guards: the number of results that are kept is bounded. One that nobody got outlives those that somebody got.
    #[tokio::test]
    async fn results_are_bounded_and_wait_for_their_clients() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        let jobs = StartedJobs::new(store.clone());
        let waits = start(&jobs, 0).unwrap().job;
        ended(&store, waits).await;
        let mut last = 0;
        for request in 1..20 {
            last = start(&jobs, request).unwrap().job;
            ended(&store, last).await;
            assert_eq!(jobs.get(last), JobState::Complete(request));
        }
        assert_eq!(jobs.kept.lock().len(), KEPT_MAX);
        assert_eq!(jobs.get(waits), JobState::Complete(0));
        assert_eq!(jobs.get(last), JobState::Complete(19));
        for request in 20..40 {
            last = start(&jobs, request).unwrap().job;
            ended(&store, last).await;
        }
        assert_eq!(jobs.kept.lock().len(), KEPT_MAX);
        assert_eq!(jobs.get(waits), JobState::Unknown);
        store.close().await.unwrap();
    }
}
