//! Waiting for a job that a command started, in a running server or in this process.
//!
//! Owns: [`run_job`]: how often the state of a job is asked for, and the line of progress on a terminal; the text of
//! progress, also for lists. Refuses: the kinds of jobs and their results, which the commands know.
//!
//! Invariant: nothing is written if standard error is not a terminal. The line is never longer than 79 columns, so the
//! next one covers it.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use tonnage_server::admin::{JobEntry, JobState, Operation, StartedJob};

use crate::failure::Failure;
use crate::output;
use crate::target::Target;
use crate::units::format_about;

/// Shortest and longest time between two questions how far a job is.
const ASK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Columns of the bar, and of the whole line.
const BAR_COLUMNS: u64 = 16;
const LINE_COLUMNS: usize = 79;

/// How a job ended.
#[derive(Debug)]
pub(crate) enum Ended<T> {
    /// It is complete.
    Complete(T),
    /// It ended early, or the server does not know it any more.
    Failed {
        /// What happened.
        what: String,
        /// What it did before, if that is known.
        so_far: Option<T>,
    },
}

/// Starts a job and waits for its end, with its progress on a terminal. `get` makes the request for its state, and
/// `details` formats what it did so far.
pub(crate) fn run_job<S, G, T>(
    target: &mut Target,
    start: S,
    get: impl Fn(u64) -> G,
    details: impl Fn(&T) -> String,
) -> Result<Ended<T>, Failure>
where
    S: Operation<Answer = StartedJob>,
    G: Operation<Answer = JobState<T>>,
{
    let ended = wait(target, start, get, details);
    // In every case, so that the next open is quick.
    let closed = target.end_job();
    let ended = ended?;
    closed?;
    Ok(ended)
}

fn wait<S, G, T>(
    target: &mut Target,
    start: S,
    get: impl Fn(u64) -> G,
    details: impl Fn(&T) -> String,
) -> Result<Ended<T>, Failure>
where
    S: Operation<Answer = StartedJob>,
    G: Operation<Answer = JobState<T>>,
{
    let started = target.ask(start)?;
    let line = ProgressLine::begin(started, target.is_served());
    let mut pause = ASK.0;
    loop {
        let state = target.ask(get(started.job));
        if let Ok(JobState::Running { entry, so_far }) = &state {
            line.show(entry, so_far.as_ref().map(&details));
            target.wait(pause);
            pause = (pause * 2).min(ASK.1);
            continue;
        }
        line.end();
        let (what, so_far) = match state? {
            JobState::Complete(done) => return Ok(Ended::Complete(done)),
            JobState::Failed {
                cancelled: true,
                so_far,
                ..
            } => ("it was cancelled".to_owned(), so_far),
            JobState::Failed { why, so_far, .. } => (why, so_far),
            JobState::Running { .. } | JobState::Unknown => {
                let what = "the server does not know the job any more; was it restarted?";
                (what.to_owned(), None)
            }
        };
        return Ok(Ended::Failed { what, so_far });
    }
}

/// The line about a job on a terminal.
struct ProgressLine {
    is_terminal: bool,
}

impl ProgressLine {
    fn begin(started: StartedJob, is_served: bool) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let job = started.job;
        if is_terminal && started.joined {
            output::note(&format!("job {job} does this already; waiting for its end"));
        }
        if is_terminal && is_served {
            output::note(&format!(
                "job {job}; it continues without this command; to end it: tonnage jobs cancel {job}"
            ));
        }
        Self { is_terminal }
    }

    /// Shows how far the job is.
    fn show(&self, entry: &JobEntry, details: Option<String>) {
        let mut line = line(entry);
        if let Some(details) = details {
            line = format!("{line}; {details}");
        }
        self.write(&line);
    }

    /// Removes the line.
    fn end(&self) {
        self.write("");
    }

    fn write(&self, line: &str) {
        if self.is_terminal {
            let line: String = line.chars().take(LINE_COLUMNS).collect();
            let line = format!("\r{line}\x1b[K");
            io::stderr().write_all(line.as_bytes()).unwrap_or_default();
        }
    }
}

/// Formats a job with a bar, if it is known how far it has to go.
fn line(entry: &JobEntry) -> String {
    let (name, progress) = (&entry.name, progress(entry));
    let paused = if entry.paused { "paused, " } else { "" };
    if entry.total == 0 {
        return format!("{name}: {paused}{progress}");
    }
    let (done, total) = (entry.done.min(entry.total), entry.total);
    let part = |of: u64| {
        let part = u128::from(done) * u128::from(of) / u128::from(total);
        u64::try_from(part).unwrap_or(of)
    };
    let full = part(BAR_COLUMNS);
    let bar: String = (0..BAR_COLUMNS)
        .map(|column| if column < full { '#' } else { '-' })
        .collect();
    format!("{name} [{bar}] {:>3} % {paused}{progress}", part(100))
}

/// Formats how far a job is, and how fast.
pub(crate) fn progress(job: &JobEntry) -> String {
    let amount = |count: u64| {
        if job.unit == "bytes" {
            format_about(count)
        } else {
            format!("{count} {}", job.unit)
        }
    };
    let (done, rate) = (amount(job.done), amount(job.per_second));
    if job.total == 0 {
        return format!("{done}, {rate}/s");
    }
    format!("{done} of {}, {rate}/s", amount(job.total))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a job whose total is known has a bar and a percentage, also at its limits; another one has none.
    #[test]
    fn a_bar_shows_the_part_that_is_done() {
        let entry = |done, total, paused| JobEntry {
            id: 1,
            name: "scrub".to_owned(),
            since_unix_ms: 0,
            unit: "bytes".to_owned(),
            done,
            total,
            per_second: 2048,
            paused,
        };
        let half = line(&entry(1 << 20, 2 << 20, true));
        assert_eq!(
            half,
            "scrub [########--------]  50 % paused, 1.0 MiB of 2.0 MiB, 2.0 KiB/s"
        );
        for (done, bar) in [
            (0, "[----------------]   0 %"),
            (u64::MAX, "[################] 100 %"),
        ] {
            assert!(line(&entry(done, u64::MAX, false)).contains(bar));
        }
        assert_eq!(line(&entry(512, 0, false)), "scrub: 512 B, 2.0 KiB/s");
    }
}
