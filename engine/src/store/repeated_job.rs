//! The job of a task that repeats its work.
//!
//! Owns: [`RepeatedJob`]. Refuses: the work, and how often it is repeated.
//!
//! Invariant: a paused job is listed, and its task neither works nor holds anything of the store.

use std::sync::Arc;

use crate::jobs::{Job, JobKind, Jobs};

/// The job of a task, listed while the task works or is paused.
#[derive(Debug)]
pub(super) struct RepeatedJob {
    kind: JobKind,
    job: Option<Job>,
}

impl RepeatedJob {
    /// Creates one that is not listed yet.
    pub(super) fn new(kind: JobKind) -> Self {
        Self { kind, job: None }
    }

    /// Waits for `pause` before the next cycle. If an operator paused the last one, waits until it is resumed or
    /// cancelled instead.
    pub(super) async fn rest(&self, pause: impl Future<Output = ()>) {
        match &self.job {
            // One that was cancelled ends at the first checkpoint of its cycle.
            Some(job) => job.resumed().await.unwrap_or_default(),
            None => pause.await,
        }
    }

    /// Lists the job of a cycle that begins: that of the last one if an operator paused it.
    pub(super) fn begin(&mut self, jobs: &Arc<Jobs>) -> &Job {
        let job = self
            .job
            .get_or_insert_with(|| jobs.begin_repeated(self.kind));
        job.begin_phase(self.kind);
        job
    }

    /// Ends the job with its cycle, unless an operator paused it.
    pub(super) fn end(&mut self) {
        self.job.take_if(|job| !job.is_paused());
    }
}
