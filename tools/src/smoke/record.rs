//! The record of a run: steps with their times.
//!
//! Owns: [`Recorder`], which times a step, detects a lack of progress, and shows progress on terminals.
//! Refuses: deciding what a step does or which step follows.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::Meter;
use crate::output;
use crate::units::format_rate;

/// Interval of readings of the meter.
const TICK: Duration = Duration::from_millis(100);

/// A failure of a step: what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// What the protocol or the pushed content requires.
    pub(crate) expected: String,
    /// What the registry did.
    pub(crate) found: String,
    /// Whether the registry answered at all.
    #[serde(skip)]
    answered: bool,
}

impl Problem {
    /// Creates a problem from two noun phrases.
    pub(crate) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            found: found.into(),
            answered: true,
        }
    }

    /// Creates the problem for a missing answer. The cause is at the end of the chain of errors.
    pub(crate) fn unanswered(what: &str, error: &dyn Error) -> Self {
        let mut cause = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let problem = Self::new(format!("an answer to {what}"), cause.to_string());
        Self {
            answered: false,
            ..problem
        }
    }
}

/// How a step ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should.
    Done,
    /// As expected, with a remark.
    DoneBut(String),
    /// The registry lacks an optional part of the protocol; the text is its answer.
    NotOffered(String),
}

/// How a step ended, for the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// As it should.
    Ok,
    /// The registry does not offer it.
    NotOffered,
    /// Not as it should.
    Failed,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    name: String,
    verdict: Verdict,
    milliseconds: f64,
    /// Payload bytes that the step moved; 0 where they do not matter.
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(flatten)]
    problem: Option<Problem>,
}

/// A step failed, so the steps that depend on it are not run.
#[derive(Debug)]
pub(crate) struct Stop;

/// The record of all steps so far.
#[derive(Debug)]
pub(crate) struct Recorder {
    steps: Vec<Step>,
    meter: Meter,
    patience: Duration,
    strict: bool,
    print: bool,
    progress: bool,
}

impl Recorder {
    /// Creates an empty record. A step without progress for `stall_timeout` fails; with `strict`, so does one that is
    /// not offered. With `print`, each step is printed when it ends.
    pub(crate) fn new(meter: Meter, patience: Duration, strict: bool, print: bool) -> Self {
        let progress = print && io::stderr().is_terminal();
        Self {
            steps: Vec::new(),
            meter,
            patience,
            strict,
            print,
            progress,
        }
    }

    /// Runs one step that transfers `bytes` of payload, and records it.
    pub(crate) async fn step(
        &mut self,
        name: impl Into<String>,
        bytes: u64,
        work: impl Future<Output = Result<Outcome, Problem>>,
    ) -> Result<(), Stop> {
        let name = name.into();
        let begin = Instant::now();
        let result = self.watch(&name, bytes, work).await;
        let milliseconds = begin.elapsed().as_secs_f64() * 1000.0;
        // A step that is not offered does not stop the run, even with `--strict`.
        let go_on = result.is_ok();
        let (verdict, note, problem) = match result {
            Ok(Outcome::Done) => (Verdict::Ok, None, None),
            Ok(Outcome::DoneBut(note)) => (Verdict::Ok, Some(note), None),
            Ok(Outcome::NotOffered(how)) if self.strict => {
                let expected = "a registry that offers this (--strict)";
                (Verdict::Failed, None, Some(Problem::new(expected, how)))
            }
            Ok(Outcome::NotOffered(how)) => (Verdict::NotOffered, Some(how), None),
            Err(problem) => (Verdict::Failed, None, Some(problem)),
        };
        let step = Step {
            name,
            verdict,
            milliseconds,
            bytes,
            note,
            problem,
        };
        if self.print {
            // If the output has been closed, the run fails at the summary, so that the registry is still cleaned up.
            output::result(&step.line()).unwrap_or_default();
        }
        self.steps.push(step);
        if go_on { Ok(()) } else { Err(Stop) }
    }

    async fn watch(
        &self,
        name: &str,
        bytes: u64,
        work: impl Future<Output = Result<Outcome, Problem>>,
    ) -> Result<Outcome, Problem> {
        let start = self.meter.bytes();
        let (mut last, mut last_moved) = (start, Instant::now());
        let mut work = std::pin::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                () = tokio::time::sleep(TICK) => {}
            }
            let now = self.meter.bytes();
            if now != last {
                (last, last_moved) = (now, Instant::now());
            } else if last_moved.elapsed() > self.patience {
                let expected = format!("progress within {:.0?}", self.patience);
                break Err(Problem::new(expected, "the registry made no progress"));
            }
            self.draw(name, now - start, bytes);
        };
        self.erase();
        result
    }

    fn draw(&self, name: &str, moved: u64, bytes: u64) {
        if self.progress && bytes > 0 {
            let line = format!("\r{name}: {} of {} MiB\x1b[K", moved >> 20, bytes >> 20);
            io::stderr().write_all(line.as_bytes()).unwrap_or_default();
        }
    }

    fn erase(&self) {
        if self.progress {
            io::stderr().write_all(b"\r\x1b[K").unwrap_or_default();
        }
    }

    /// Returns all steps.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns whether the first request got no answer.
    pub(crate) fn nobody_there(&self) -> bool {
        let first = self.steps.first().and_then(|step| step.problem.as_ref());
        first.is_some_and(|problem| !problem.answered)
    }

    /// Returns how many steps ended with `verdict`.
    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.steps
            .iter()
            .filter(|step| step.verdict == verdict)
            .count()
    }

    /// Returns the rate in MiB/s of the step whose name begins with `prefix`, if it succeeded.
    pub(crate) fn rate(&self, prefix: &str) -> Option<f64> {
        let done = |step: &&Step| step.verdict == Verdict::Ok && step.name.starts_with(prefix);
        self.steps.iter().find(done).map(Step::rate)
    }
}

impl Step {
    fn rate(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate for people needs three digits"
        )]
        let mib = self.bytes as f64 / f64::from(1u32 << 20);
        mib / (self.milliseconds / 1000.0).max(f64::MIN_POSITIVE)
    }

    fn line(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::NotOffered => "not offered",
            Verdict::Failed => "FAILED",
        };
        let mut line = format!(
            "{verdict:11}  {:44} {:>9.1} ms",
            self.name, self.milliseconds
        );
        if self.verdict == Verdict::Ok && self.bytes > 0 {
            line.push_str(&format_rate(self.rate()));
        }
        if let Some(note) = &self.note {
            line = format!("{line}  {note}");
        }
        if let Some(Problem {
            expected, found, ..
        }) = &self.problem
        {
            line =
                format!("{line}\n             expected {expected}\n             found    {found}");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(strict: bool, result: Result<Outcome, Problem>) -> (bool, Recorder) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let mut recorder = Recorder::new(Meter::default(), Duration::ZERO, strict, false);
        let ended = runtime.block_on(recorder.step("a step", 0, async { result }));
        (ended.is_ok(), recorder)
    }

    /// Guards: a missing optional part fails only with `--strict`.
    #[test]
    fn what_is_not_offered_fails_only_if_strict() {
        let missing = || Ok(Outcome::NotOffered("405".to_owned()));
        let (went_on, recorder) = run(false, missing());
        assert!(went_on && recorder.count(Verdict::NotOffered) == 1);
        let (went_on, recorder) = run(true, missing());
        assert!(went_on && recorder.count(Verdict::Failed) == 1);
    }

    /// Guards: a failure reports what was expected and what was found, in text and in JSON.
    #[test]
    fn a_failure_names_both_sides() {
        let (went_on, recorder) = run(false, Err(Problem::new("200", "404")));
        assert!(!went_on);
        let step = &recorder.steps()[0];
        assert!(step.line().contains("expected 200") && step.line().contains("found    404"));
        let json = serde_json::to_value(step).unwrap();
        assert_eq!(
            (&json["expected"], &json["verdict"]),
            (&"200".into(), &"failed".into())
        );
    }

    /// Guards: a step without progress fails instead of hanging.
    #[test]
    fn a_step_without_progress_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let mut recorder = Recorder::new(Meter::default(), Duration::ZERO, false, false);
        let hangs = std::future::pending();
        assert!(runtime.block_on(recorder.step("hangs", 0, hangs)).is_err());
        assert!(recorder.steps()[0].line().contains("no progress"));
    }
}
