//! What happened: steps with their times, written down as they end.
//!
//! Owns: [`Recorder`], which times a step, notices that it stands still, and shows progress on terminals.
//! Refuses: deciding what a step does or what follows from its end.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::Meter;
use crate::output;
use crate::units::format_rate;

/// Time between two looks at the meter.
const TICK: Duration = Duration::from_millis(100);

/// What should have been and what was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// What the protocol or the pushed content demands.
    pub(crate) expected: String,
    /// What the registry did.
    pub(crate) found: String,
    /// Whether the registry answered at all.
    #[serde(skip)]
    answered: bool,
}

impl Problem {
    /// Two noun phrases.
    pub(crate) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            found: found.into(),
            answered: true,
        }
    }

    /// No answer came; the cause is at the end of the chain of errors.
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

/// How a step that was no failure ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should.
    Done,
    /// As well as could be expected; what is left to say.
    DoneBut(String),
    /// The registry lacks an optional part of the protocol; how it said so.
    NotOffered(String),
}

/// How a step ended, for the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// As it should.
    Ok,
    /// Not part of this registry.
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

/// The step before this failed: what depends on it makes no sense.
#[derive(Debug)]
pub(crate) struct Stop;

/// Everything that happened so far.
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
    /// Nothing yet. A step that moves no byte for `patience` has failed; if `strict`, so has one that is not
    /// offered. Each step is printed as it ends if `print`.
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

    /// Runs one step that moves `bytes` of payload to its end and writes it down.
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
        // What is not offered keeps nothing after it from being tried, strict or not.
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
            // A reader that went away ends the run at the summary; the registry is still cleaned up.
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
                break Err(Problem::new(expected, "the registry stood still"));
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

    /// All steps.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether the first thing asked never got an answer.
    pub(crate) fn nobody_there(&self) -> bool {
        let first = self.steps.first().and_then(|step| step.problem.as_ref());
        first.is_some_and(|problem| !problem.answered)
    }

    /// How many steps ended with `verdict`.
    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.steps
            .iter()
            .filter(|step| step.verdict == verdict)
            .count()
    }

    /// MiB per second of the step whose name begins with `prefix`, if it went well.
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

    /// Guards: a missing optional part is no failure, unless it was asked for.
    #[test]
    fn what_is_not_offered_fails_only_if_strict() {
        let missing = || Ok(Outcome::NotOffered("405".to_owned()));
        let (went_on, recorder) = run(false, missing());
        assert!(went_on && recorder.count(Verdict::NotOffered) == 1);
        let (went_on, recorder) = run(true, missing());
        assert!(went_on && recorder.count(Verdict::Failed) == 1);
    }

    /// Guards: a failure says what was expected and what was found, in text and in JSON.
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

    /// Guards: a registry that stands still ends the step instead of hanging it.
    #[test]
    fn a_step_without_progress_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let mut recorder = Recorder::new(Meter::default(), Duration::ZERO, false, false);
        let hangs = std::future::pending();
        assert!(runtime.block_on(recorder.step("hangs", 0, hangs)).is_err());
        assert!(recorder.steps()[0].line().contains("stood still"));
    }
}
