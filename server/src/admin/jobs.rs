//! The jobs of a store: what works in the background.
//!
//! Owns: [`ListJobs`] and [`ControlJobs`] with their answers. Refuses: the jobs themselves, which the engine has.

use serde::{Deserialize, Serialize};
use tonnage_engine::{JobControl, JobInfo, Store};

/// Requests the jobs that run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ListJobs {}

/// Jobs, in the order of their beginnings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<JobEntry>,
}

/// A job that runs. [`JobInfo`] describes each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are the engine's, which describes them"
)]
pub struct JobEntry {
    pub id: u64,
    pub name: String,
    pub since_unix_ms: u64,
    /// What `done` and `total` count.
    pub unit: String,
    pub done: u64,
    pub total: u64,
    pub per_second: u64,
    pub paused: bool,
}

impl From<JobInfo> for JobEntry {
    fn from(job: JobInfo) -> Self {
        Self {
            id: job.id,
            name: job.kind.name().to_owned(),
            since_unix_ms: job.since_unix_ms,
            unit: job.kind.unit().to_owned(),
            done: job.done,
            total: job.total,
            per_second: job.per_second,
            paused: job.paused,
        }
    }
}

/// Requests to pause, resume or cancel jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ControlJobs {
    /// The number of a job, or the name of all jobs of a kind.
    pub job: String,
    /// What to do.
    pub action: JobAction,
}

/// What to do with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobAction {
    /// Let it wait after its current step. A cycle that the server repeats by itself ends, and none begins.
    Pause,
    /// Let it continue.
    Resume,
    /// End it after its current step.
    Cancel,
}

impl From<JobAction> for JobControl {
    fn from(action: JobAction) -> Self {
        match action {
            JobAction::Pause => Self::Pause,
            JobAction::Resume => Self::Resume,
            JobAction::Cancel => Self::Cancel,
        }
    }
}

pub(super) fn list_jobs(store: &Store) -> JobList {
    let jobs = store.jobs().into_iter();
    JobList {
        jobs: jobs.map(JobEntry::from).collect(),
    }
}

/// Returns the jobs that were controlled; none if no such job runs.
pub(super) fn control_jobs(store: &Store, request: &ControlJobs) -> JobList {
    let is_meant =
        |job: &JobInfo| request.job == job.kind.name() || request.job == job.id.to_string();
    let mut controlled = Vec::new();
    for job in store.jobs().into_iter().filter(is_meant) {
        // One that ended meanwhile is left out.
        if store.control_job(job.id, request.action.into()) {
            let (id, name, action) = (job.id, job.kind.name(), request.action);
            tracing::info!(id, name, ?action, "the operator controlled a job");
            controlled.push(JobEntry::from(job));
        }
    }
    JobList { jobs: controlled }
}
