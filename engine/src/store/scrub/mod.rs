//! Scrub: reads what is stored and finds damage before a client does.
//!
//! Owns: the task that repeats passes, passes on request, and the results. Refuses: one pass (`pass`), when and how
//! fast (`crate::scrub`), and healing: a push of the blob does.

mod pass;
mod unnamed;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use self::pass::Pass;
use super::Inner;
use super::background::or_closing;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::scrub::Schedule;
use crate::sync::Mutex;

/// Results of passes on request that are kept until they are asked for.
const RESULTS_MAX: usize = 16;

/// What a pass is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubRequest {
    /// Whether to compute digests, too. Otherwise only checksums are compared.
    pub digests: bool,
    /// Most bytes to read in a second, on average; 0 for no limit.
    pub bytes_per_second: u64,
    /// Most damaged blobs that the report names.
    pub list_max: usize,
}

/// What a pass read and found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScrubReport {
    /// Segments that were read.
    pub segments: u64,
    /// Blobs that were found intact.
    pub blobs: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Blobs that were found damaged.
    pub damaged: u64,
    /// Segments and blobs that could not be read now, because descriptors, threads or memory were missing. Nothing is
    /// known about them.
    pub skipped: u64,
    /// The first of the damaged blobs.
    pub listed: Vec<Digest>,
}

/// Totals of all passes since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubTotals {
    /// Bytes that were read.
    pub bytes: u64,
    /// Blobs that were found intact.
    pub blobs: u64,
    /// Blobs that were found damaged. One that stays so counts in each pass.
    pub damaged: u64,
    /// Wall-clock time at which the last complete pass ended, in Unix ms; 0 before.
    pub last_success_unix_ms: u64,
    /// The same of the last complete pass that computed digests.
    pub last_digests_unix_ms: u64,
}

/// What passes share.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    totals: Mutex<ScrubTotals>,
    results: Mutex<VecDeque<(u64, Result<ScrubReport>)>>,
}

impl Scrub {
    /// Returns the totals.
    pub(super) fn totals(&self) -> ScrubTotals {
        *self.totals.lock()
    }

    /// Returns the result of a pass on request that has ended.
    pub(super) fn result(&self, job: u64) -> Option<Result<ScrubReport>> {
        let results = self.results.lock();
        let result = results.iter().find(|(id, _)| *id == job);
        result.map(|(_, result)| result.clone())
    }

    fn keep(&self, job: u64, result: Result<ScrubReport>) {
        let mut results = self.results.lock();
        if results.len() == RESULTS_MAX {
            results.pop_front();
        }
        results.push_back((job, result));
    }

    fn completed(&self, digests: bool, now_unix_ms: u64) {
        let mut totals = self.totals.lock();
        totals.last_success_unix_ms = now_unix_ms;
        if digests {
            totals.last_digests_unix_ms = now_unix_ms;
        }
    }
}

/// Repeats passes until the store closes.
///
/// Each begins at a random segment. Where the last one was is not kept over a restart, and needs not be: however often
/// the store is opened, every segment is read equally often on average.
pub(super) async fn task(store: Weak<Inner>, mut closing: watch::Receiver<bool>) {
    let Some(inner) = store.upgrade() else { return };
    let options = &inner.options;
    let request = ScrubRequest {
        digests: false,
        bytes_per_second: options.scrub_bytes_per_second,
        list_max: 0,
    };
    if request.bytes_per_second == 0 {
        return;
    }
    let clock = Arc::clone(&inner.env.clock);
    let mut random = [0; 4];
    inner.env.rng.fill(&mut random);
    let random = u32::from_le_bytes(random);
    let (every, digests_every) = (options.scrub_every, options.scrub_digests_every);
    let mut schedule = Schedule::new(every, digests_every, clock.monotonic(), random);
    drop(inner);
    loop {
        let pause = clock.sleep(schedule.wait(clock.monotonic()));
        if !or_closing(pause, &mut closing).await {
            return;
        }
        let began = clock.monotonic();
        let digests = schedule.wants_digests(began);
        let Some(inner) = store.upgrade() else { return };
        let mut pass = Pass::begin(&inner, ScrubRequest { digests, ..request });
        // A pass takes long, and must not keep a store open that is dropped.
        drop(inner);
        let mut ended = Err(Error::Closed);
        if !or_closing(async { ended = pass.run(true).await }, &mut closing).await {
            return;
        }
        schedule.ended(began, digests, ended.is_ok());
        match ended {
            Ok(()) => log(&pass.report(), digests),
            Err(Error::Cancelled) => {
                tracing::info!("scrub was cancelled by the operator; the next pass begins in time");
            }
            Err(error) => {
                tracing::warn!(%error, "scrub could not read everything; the next pass begins in time");
            }
        }
    }
}

fn log(report: &ScrubReport, digests: bool) {
    let ScrubReport {
        blobs,
        bytes,
        damaged,
        skipped,
        ..
    } = report;
    tracing::info!(
        blobs,
        bytes,
        damaged,
        skipped,
        digests,
        "scrub has read everything"
    );
}

/// Runs one pass now, from the first segment on.
pub(super) async fn scrub(inner: &Inner, request: ScrubRequest) -> Result<ScrubReport> {
    let mut pass = Pass::begin(inner, request);
    pass.run(false).await?;
    Ok(pass.report())
}

/// Starts such a pass beside all other work. Returns the number of its job, by which its result is kept.
pub(super) fn start(inner: &Inner, request: ScrubRequest) -> u64 {
    let mut pass = Pass::begin(inner, request);
    let (job, shared) = (pass.job(), Arc::clone(&inner.scrub));
    let mut closing = inner.closing.subscribe();
    let task = async move {
        let mut ended = Err(Error::Closed);
        or_closing(async { ended = pass.run(false).await }, &mut closing).await;
        if ended.is_ok() {
            log(&pass.report(), request.digests);
        }
        // Before the job ends, so that whoever waits for it finds the result.
        shared.keep(job, ended.map(|()| pass.report()));
        drop(pass);
    };
    inner.env.spawn.spawn("scrub", Box::pin(task));
    job
}
