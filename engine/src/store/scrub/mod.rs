//! Scrub: reads what is stored and finds damage before a client does.
//!
//! Owns: the task that repeats passes, and passes on request. Refuses: one pass (`pass`), when and how
//! fast (`crate::scrub`), and healing: a push of the blob does.

mod pass;
mod unnamed;

use std::sync::{Arc, Weak};

use tokio::sync::watch;

use self::pass::Pass;
use super::Inner;
use super::background::or_closing;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::jobs::{Job, JobKind};
use crate::scrub::Schedule;
use crate::sync::Mutex;

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
}

impl Scrub {
    /// Returns the totals.
    pub(super) fn totals(&self) -> ScrubTotals {
        *self.totals.lock()
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
        let job = inner.jobs.begin(JobKind::Scrub);
        let mut pass = Pass::begin(&inner, job, ScrubRequest { digests, ..request });
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

/// Runs one pass now as `job`, from the first segment on. Ends when the store closes.
pub(super) async fn scrub(inner: &Inner, job: &Job, request: ScrubRequest) -> Result<ScrubReport> {
    let mut pass = Pass::begin(inner, job.clone(), request);
    let mut closing = inner.closing.subscribe();
    let mut ended = Err(Error::Closed);
    or_closing(async { ended = pass.run(false).await }, &mut closing).await;
    ended?;
    log(&pass.report(), request.digests);
    Ok(pass.report())
}
