//! Repair: heals damaged blobs with content from another registry.
//!
//! Owns: [`Repairs`], the repairs of one store; the job, how many blobs it heals at a time, and its report. Refuses:
//! one blob (`heal`), and reaching the other registry, which is behind the port [`Peer`].
//!
//! Invariants: memory does not grow with the number of damaged blobs. A blob that cannot be healed stays as it is, and
//! the repair continues with the next. A peer that cannot be reached for several blobs in a row ends it.

mod heal;
mod plan;
mod report;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tonnage_engine::{DamagedBlobs, Error, Job, JobKind, Pace, Store};

pub(crate) use self::plan::plan;
pub use self::plan::{Place, PlannedBlob};
pub use self::report::{BlobOutcome, HealError, HealedFrom, RepairReport, RepairedBlob};
use crate::clock::RunningClock;
use crate::registry::peer::Peer;

/// Blobs that are healed at a time, so that the next one is received while one is committed.
const HEALED_AT_A_TIME: usize = 2;
/// Blobs in a row for which the peer could not be reached, after which it is not asked again.
const UNREACHABLE_MAX: u32 = 5;
/// Repairs whose reports are kept.
const KEPT_MAX: usize = 16;

/// The repairs of one store that were started last.
#[derive(Debug, Default)]
pub struct Repairs(Mutex<VecDeque<Arc<Repair>>>);

/// A repair that runs or has ended.
#[derive(Debug)]
pub struct Repair {
    id: u64,
    report: Mutex<RepairReport>,
    ended: watch::Sender<Option<Result<(), RepairError>>>,
}

/// Why a repair ended before it had tried every blob.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RepairError {
    /// The peer could not be reached for several blobs in a row.
    #[error("the other registry could not be reached {UNREACHABLE_MAX} times in a row: {0}")]
    Unreachable(String),
    /// The store failed, or the job was cancelled.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Repairs {
    /// Starts a repair from `peer` beside all other work. It receives at most so many bytes in a second; 0 is no limit.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(&self, store: Store, peer: Arc<dyn Peer>, bytes_per_second: u64) -> Arc<Repair> {
        let job = store.begin_job(JobKind::Repair);
        let repair = Arc::new(Repair {
            id: job.id(),
            report: Mutex::default(),
            ended: watch::Sender::new(None),
        });
        let mut kept = self.0.lock();
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&repair));
        drop(kept);
        let clock = RunningClock::start();
        let running = Running {
            pace: Mutex::new(Pace::new(bytes_per_second, clock.now())),
            clock,
            store,
            peer,
            job,
            repair: Arc::clone(&repair),
            unreachable: Mutex::default(),
        };
        tokio::spawn(running.run());
        repair
    }

    /// Returns the repair with this job, if it is remembered.
    pub fn get(&self, job: u64) -> Option<Arc<Repair>> {
        let kept = self.0.lock();
        kept.iter().find(|repair| repair.id == job).cloned()
    }
}

impl Repair {
    /// Returns the number of its job.
    pub fn job(&self) -> u64 {
        self.id
    }

    /// Returns what was done so far.
    pub fn report(&self) -> RepairReport {
        self.report.lock().clone()
    }

    /// Returns how it ended; `None` while it runs.
    pub fn ended(&self) -> Option<Result<(), RepairError>> {
        self.ended.borrow().clone()
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> Result<(), RepairError> {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await;
        // The sender is a part of `self`, so it is not gone.
        let ended = ended.ok().and_then(|ended| ended.clone());
        ended.unwrap_or(Err(RepairError::Store(Error::Closed)))
    }
}

/// The work of a repair.
struct Running {
    store: Store,
    peer: Arc<dyn Peer>,
    job: Job,
    repair: Arc<Repair>,
    clock: RunningClock,
    pace: Mutex<Pace>,
    /// Blobs in a row for which the peer could not be reached.
    unreachable: Mutex<u32>,
}

impl Running {
    async fn run(self) {
        let ended = self.heal_all().await;
        let RepairReport { healed, left, .. } = *self.repair.report.lock();
        match &ended {
            Ok(()) => tracing::info!(healed, left, "the repair has tried every damaged blob"),
            Err(error) => tracing::warn!(%error, healed, left, "the repair ended early"),
        }
        // Before the job ends, so that whoever waits for it finds the result.
        self.repair.ended.send_replace(Some(ended));
    }

    async fn heal_all(&self) -> Result<(), RepairError> {
        let mut blobs = self.store.damaged_blobs();
        let mut total = 0_u64;
        while let Some((_, stored)) = blobs.next().await? {
            total = total.saturating_add(stored.length);
        }
        self.job.set_total(total);
        let blobs = tokio::sync::Mutex::new(self.store.damaged_blobs());
        let workers = (0..HEALED_AT_A_TIME).map(|_| self.heal_some(&blobs));
        futures_util::future::try_join_all(workers).await?;
        Ok(())
    }

    async fn heal_some(&self, blobs: &tokio::sync::Mutex<DamagedBlobs>) -> Result<(), RepairError> {
        loop {
            self.job.checkpoint().await?;
            let next = blobs.lock().await.next().await?;
            let Some((digest, stored)) = next else {
                return Ok(());
            };
            let (planned, outcome) = self.heal(digest, stored.length).await?;
            let unreachable = outcome.unreachable().map(str::to_owned);
            self.repair.report.lock().add(&planned, outcome);
            let mut in_a_row = self.unreachable.lock();
            *in_a_row = unreachable.as_ref().map_or(0, |_| *in_a_row + 1);
            if let Some(why) = unreachable
                && *in_a_row >= UNREACHABLE_MAX
            {
                return Err(RepairError::Unreachable(why));
            }
        }
    }
}
