//! Repair: heals damaged blobs with content from another registry.
//!
//! Owns: `repair`: how many blobs it heals at a time, when it ends, and its report. Refuses: one blob (`heal`), and
//! reaching the other registry, which is behind the port [`Peer`].
//!
//! Invariants: memory does not grow with the number of damaged blobs. A blob that cannot be healed stays as it is, and
//! the repair continues with the next. A peer that is lost for several blobs in a row ends it: it cannot be reached, or
//! sends too slowly. Blobs for which it was not asked do not count.

mod heal;
mod plan;
mod report;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;
use tonnage_engine::{BlobInfo, DamagedBlobs, Digest, Error, Job, Pace, Store};

pub(crate) use self::plan::plan;
pub use self::plan::{Place, PlannedBlob};
use self::report::Contact;
pub use self::report::{BlobOutcome, HealError, HealedFrom, RepairReport, RepairedBlob};
use crate::clock::RunningClock;
use crate::registry::peer::{Peer, PeerError};

/// Blobs that are healed at a time, so that the next one is received while one is committed.
const HEALED_AT_A_TIME: usize = 2;
/// Blobs in a row for which the peer was lost, after which it is not asked again.
const LOST_MAX: u32 = 5;

/// Why a repair ended before it had tried every blob.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RepairError {
    /// The peer could not be reached, or sent too slowly, for several blobs in a row.
    #[error("{LOST_MAX} blobs in a row failed because of the other registry: {0}")]
    Lost(PeerError),
    /// The store failed, or the job was cancelled.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Tries to heal every damaged blob from `peer`, as `job`. Receives at most so many bytes in a second; 0 is no limit.
/// `report` has what was done so far, and at the end all of it.
pub(crate) async fn repair(
    store: Store,
    peer: Arc<dyn Peer>,
    job: Job,
    bytes_per_second: u64,
    report: &Mutex<RepairReport>,
) -> Result<(), RepairError> {
    let clock = RunningClock::start();
    let running = Running {
        pace: Mutex::new(Pace::new(bytes_per_second, clock.now())),
        clock,
        store,
        peer,
        job,
        report,
        lost: Mutex::default(),
    };
    running.heal_all().await?;
    let RepairReport { healed, left, .. } = *report.lock();
    tracing::info!(healed, left, "the repair has tried every damaged blob");
    Ok(())
}

/// The work of a repair.
struct Running<'a> {
    store: Store,
    peer: Arc<dyn Peer>,
    job: Job,
    report: &'a Mutex<RepairReport>,
    pace: Mutex<Pace>,
    clock: RunningClock,
    lost: Mutex<LostInARow>,
}

/// Counts the blobs in a row for which the peer was lost.
#[derive(Debug, Default)]
struct LostInARow(u32);

impl LostInARow {
    /// Counts an outcome.
    ///
    /// # Errors
    /// [`RepairError::Lost`] if the peer is to be asked for nothing more.
    fn count(&mut self, outcome: &BlobOutcome) -> Result<(), RepairError> {
        match outcome.contact() {
            Contact::None => {}
            Contact::Answered => self.0 = 0,
            Contact::Lost(why) => {
                self.0 += 1;
                if self.0 >= LOST_MAX {
                    return Err(RepairError::Lost(why.clone()));
                }
            }
        }
        Ok(())
    }
}

impl Running<'_> {
    async fn heal_all(&self) -> Result<(), RepairError> {
        let mut blobs = self.store.damaged_blobs();
        let mut total = 0_u64;
        while let Some((_, stored)) = self.next(&mut blobs).await? {
            total = total.saturating_add(stored.length);
            self.job.checkpoint().await?;
        }
        self.job.set_total(total);
        let blobs = tokio::sync::Mutex::new(self.store.damaged_blobs());
        let workers = (0..HEALED_AT_A_TIME).map(|_| self.heal_some(&blobs));
        futures_util::future::try_join_all(workers).await?;
        Ok(())
    }

    /// Returns the next damaged blob. Looking for it may take long, so the job can end meanwhile.
    async fn next(&self, blobs: &mut DamagedBlobs) -> Result<Option<(Digest, BlobInfo)>, Error> {
        self.job.unless_stopped(blobs.next()).await?
    }

    async fn heal_some(&self, blobs: &tokio::sync::Mutex<DamagedBlobs>) -> Result<(), RepairError> {
        loop {
            self.job.checkpoint().await?;
            let next = self.next(&mut *blobs.lock().await).await?;
            let Some((digest, stored)) = next else {
                return Ok(());
            };
            let (planned, outcome) = self.heal(digest, stored.length).await?;
            let counted = self.lost.lock().count(&outcome);
            self.report.lock().add(&planned, outcome);
            counted?;
        }
    }
}
