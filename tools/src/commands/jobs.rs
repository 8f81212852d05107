//! `tonnage jobs`: lists what a running server does in the background, and pauses, resumes or cancels it.
//!
//! Owns: the text and JSON forms. Refuses: closed stores, which have no jobs.

use clap::Subcommand;
use serde::Serialize;
use tonnage_server::admin::{ControlJobs, JobAction, JobEntry, ListJobs};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, List};
use crate::target::{Target, TargetArguments};
use crate::units::format_time;
use crate::waiting::progress;

/// Arguments of `jobs`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Jobs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArguments,
}

/// What to do with a job.
#[derive(Debug, Subcommand)]
enum Action {
    /// Let a job wait after its current step
    Pause(OneJob),
    /// Let a paused job continue
    Resume(OneJob),
    /// End a job after its current step
    Cancel(OneJob),
}

#[derive(Debug, clap::Args)]
struct OneJob {
    /// Number of the job, or name of all jobs of a kind
    #[arg(value_name = "NAME-OR-ID")]
    job: String,
    #[command(flatten)]
    target: TargetArguments,
}

#[derive(Debug, Serialize)]
struct JobRow<'a> {
    #[serde(flatten)]
    job: &'a JobEntry,
    /// RFC 3339 UTC.
    since: String,
}

/// Lists jobs, or controls one.
pub(crate) fn run(arguments: &Jobs) -> Result<Exit, Failure> {
    match &arguments.action {
        None => list(arguments),
        Some(Action::Pause(one)) => control(one, JobAction::Pause, "pauses after its current step"),
        Some(Action::Resume(one)) => control(one, JobAction::Resume, "continues"),
        Some(Action::Cancel(one)) => control(one, JobAction::Cancel, "ends after its current step"),
    }
}

fn list(arguments: &Jobs) -> Result<Exit, Failure> {
    let mut target = Target::find(&arguments.target)?;
    let found = target.ask(ListJobs {})?;
    let mut list = List::new(arguments.json, "jobs");
    for job in &found.jobs {
        let row = JobRow {
            job,
            since: format_time(job.since_unix_ms),
        };
        list.entry(&row, || line(&row))?;
    }
    list.end()?;
    Ok(Exit::Done)
}

fn line(row: &JobRow<'_>) -> String {
    let JobRow { job, since } = row;
    let (id, name) = (job.id, &job.name);
    let progress = progress(job);
    let paused = if job.paused { ", paused" } else { "" };
    format!("{id:>4}  {name}  since {since}  {progress}{paused}")
}

fn control(one: &OneJob, action: JobAction, what: &str) -> Result<Exit, Failure> {
    let mut target = Target::find(&one.target)?;
    let job = one.job.clone();
    let controlled = target.ask(ControlJobs { job, action })?;
    if controlled.jobs.is_empty() {
        let missing = format!("no job {} runs; nothing was done", one.job);
        return Err(Failure::new(Exit::NotFound, missing).hint("to list all: tonnage jobs"));
    }
    for job in &controlled.jobs {
        output::result(&format!("{} {} {what}", job.name, job.id))?;
    }
    Ok(Exit::Done)
}
