//! Repair from another registry, on request.
//!
//! Owns: [`PlanRepair`], [`StartRepair`] and [`GetRepair`] with their results. Refuses: the repair itself
//! (`crate::repair`), and which repairs run (`started`).

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tonnage_engine::{Error, JobKind, Store};

use super::error::AdminError;
use super::started::{JobState, StartedJob, StartedJobs};
use crate::outgoing::{RegistryAddress, RegistryClient, RegistryCredentials};
use crate::registry::peer::ContentKind;
use crate::repair::{
    BlobOutcome, HealedFrom, Place, PlannedBlob, RepairError, RepairReport, RepairedBlob, plan,
    repair,
};

/// Most damaged blobs that a plan lists.
const LISTED_MAX: usize = 1000;

/// Requests what a repair would ask for. Asks for nothing.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct PlanRepair {}

/// Requests a repair: damaged blobs are fetched from another registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRepair {
    /// The other registry.
    pub from: RegistryAddress,
    /// Credentials for it.
    pub credentials: Option<RegistryCredentials>,
    /// Certificates, in PEM form, to trust beside those of the system.
    pub authorities: Option<String>,
    /// Most bytes to receive in a second; 0 for no limit.
    pub bytes_per_second: u64,
}

/// Requests the state of a repair.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct GetRepair {
    /// The number of its job.
    pub job: u64,
}

/// What a repair would ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRepair {
    /// Damaged blobs.
    pub damaged: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// The first damaged blobs, at most 1000.
    pub listed: Vec<PlannedEntry>,
}

/// A damaged blob with the places to ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedEntry {
    /// Its digest.
    pub digest: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The repositories to ask for it, in this order, as `blob in NAME` or `manifest in NAME`.
    pub places: Vec<String>,
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedStore {
    /// Blobs that were healed.
    pub healed: u64,
    /// Bytes of these.
    pub healed_bytes: u64,
    /// Blobs that are still damaged.
    pub left: u64,
    /// The first of them, and the first of those that were healed, at most 1000.
    pub listed: Vec<RepairedEntry>,
}

/// A blob that a repair tried to heal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedEntry {
    /// Its digest.
    pub digest: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether it is intact.
    pub healed: bool,
    /// The place that healed it; `None` if it is damaged, or was pushed or removed meanwhile.
    pub place: Option<String>,
    /// If it is damaged: the first places that were asked.
    pub refused: Vec<RefusedPlace>,
}

/// A place that did not heal a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPlace {
    /// The place.
    pub place: String,
    /// Why it did not.
    pub why: String,
}

pub(super) async fn plan_repair(store: &Store) -> Result<PlannedRepair, AdminError> {
    let (listed, damaged, bytes) = plan(store, LISTED_MAX).await?;
    Ok(PlannedRepair {
        damaged,
        bytes,
        listed: listed.into_iter().map(PlannedEntry::from).collect(),
    })
}

pub(super) async fn start_repair(
    repairs: &StartedJobs<StartRepair, RepairedStore>,
    request: StartRepair,
) -> Result<StartedJob, AdminError> {
    let store = repairs.store().clone();
    let StartRepair {
        from,
        credentials,
        authorities,
        bytes_per_second: rate,
    } = request.clone();
    let client = RegistryClient::new(from, credentials, authorities).await;
    let client = client.map_err(|error| AdminError::Invalid(error.to_string()))?;
    let report = Arc::new(Mutex::new(RepairReport::default()));
    let reported = Arc::clone(&report);
    let so_far = move || Some(reported.lock().totals().into());
    let work = |job| async move {
        let ended = repair(store, Arc::new(client), job, rate, &report).await;
        state(ended, report.lock().clone())
    };
    repairs.start(JobKind::Repair, request, so_far, work)
}

fn state(ended: Result<(), RepairError>, report: RepairReport) -> JobState<RepairedStore> {
    match ended {
        Ok(()) => JobState::Complete(report.into()),
        Err(error) => JobState::Failed {
            why: error.to_string(),
            cancelled: matches!(error, RepairError::Store(Error::Cancelled)),
            so_far: Some(report.into()),
        },
    }
}

fn place_name(place: &Place) -> String {
    let kind = match place.kind {
        ContentKind::Blob => "blob",
        ContentKind::Manifest => "manifest",
    };
    format!("{kind} in {}", place.repository)
}

impl From<PlannedBlob> for PlannedEntry {
    fn from(blob: PlannedBlob) -> Self {
        Self {
            digest: blob.digest.to_string(),
            bytes: blob.length,
            places: blob.places.iter().map(place_name).collect(),
        }
    }
}

impl From<RepairReport> for RepairedStore {
    fn from(report: RepairReport) -> Self {
        Self {
            healed: report.healed,
            healed_bytes: report.healed_bytes,
            left: report.left,
            listed: report.listed.into_iter().map(RepairedEntry::from).collect(),
        }
    }
}

impl From<RepairedBlob> for RepairedEntry {
    fn from(blob: RepairedBlob) -> Self {
        let entry = |healed, place, refused| Self {
            digest: blob.digest.to_string(),
            bytes: blob.length,
            healed,
            place,
            refused,
        };
        match blob.outcome {
            BlobOutcome::Healed(HealedFrom::Peer(place)) => {
                entry(true, Some(place_name(&place)), Vec::new())
            }
            BlobOutcome::Healed(HealedFrom::Others) => entry(true, None, Vec::new()),
            BlobOutcome::Left(refusals) => {
                let refused = refusals.iter().map(|(place, why)| RefusedPlace {
                    place: place_name(place),
                    why: why.to_string(),
                });
                entry(false, None, refused.collect())
            }
        }
    }
}
