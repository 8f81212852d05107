//! Repair from another registry, on request.
//!
//! Owns: [`StartRepair`] and [`GetRepair`] with their answer. Refuses: the repair itself (`crate::repair`), and how far
//! it is (`jobs`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tonnage_engine::Error;

use super::error::AdminError;
use super::jobs::JobEntry;
use super::store::AdminStore;
use crate::outgoing::{RegistryAddress, RegistryClient, RegistryCredentials};
use crate::registry::peer::ContentKind;
use crate::repair::{
    BlobOutcome, HealedFrom, Place, PlannedBlob, Repair, RepairError, RepairReport, RepairedBlob,
    plan,
};

/// Most damaged blobs that a dry run lists.
const LISTED_MAX: usize = 1000;

/// Requests a repair: damaged blobs are fetched from another registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRepair {
    /// The other registry.
    pub from: RegistryAddress,
    /// Credentials for it.
    pub credentials: Option<RegistryCredentials>,
    /// Certificates, in PEM form, to trust beside those of the system.
    pub authorities: Option<String>,
    /// Most bytes to receive in a second; 0 for no limit.
    pub bytes_per_second: u64,
    /// Whether to list only what would be asked for.
    pub dry_run: bool,
    /// Whether the store was opened for this repair, whose end is then waited for.
    pub was_closed: bool,
}

/// Requests the state of a repair.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct GetRepair {
    /// The number of its job.
    pub job: u64,
}

/// The state of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RepairState {
    /// It was not started: this is what it would ask for.
    Planned(PlannedRepair),
    /// It was started, and runs or is paused.
    Running {
        /// Its job; `None` if it has just ended.
        entry: Option<JobEntry>,
        /// The number of its job.
        job: u64,
        /// Blobs that it healed so far.
        healed: u64,
        /// Blobs that it could not heal.
        left: u64,
    },
    /// It has tried every damaged blob.
    Complete(RepairedStore),
    /// It ended early.
    Failed {
        /// Why.
        why: String,
        /// Whether an operator cancelled it.
        cancelled: bool,
        /// What it did before.
        done: RepairedStore,
    },
    /// No such repair is known: the server was restarted, or the result is too old.
    Unknown,
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

pub(super) async fn start_repair(
    store: &impl AdminStore,
    request: StartRepair,
) -> Result<RepairState, AdminError> {
    let open = store.open()?;
    let store = store.writable()?;
    if request.dry_run {
        let (listed, damaged, bytes) = plan(store, LISTED_MAX).await?;
        return Ok(RepairState::Planned(PlannedRepair {
            damaged,
            bytes,
            listed: listed.into_iter().map(PlannedEntry::from).collect(),
        }));
    }
    let from = request.from.to_string();
    let client = RegistryClient::new(request.from, request.credentials, request.authorities).await;
    let client = client.map_err(|error| AdminError::Invalid(error.to_string()))?;
    let rate = request.bytes_per_second;
    let repair = open.repairs().start(store.clone(), Arc::new(client), rate);
    let job = repair.job();
    tracing::info!(job, from, "the operator started a repair");
    if request.was_closed {
        // Its state has the result.
        repair.wait().await.unwrap_or_default();
    }
    Ok(state(&repair, None))
}

pub(super) fn get_repair(
    store: &impl AdminStore,
    request: GetRepair,
) -> Result<RepairState, AdminError> {
    let running = store.writable()?.jobs().into_iter();
    let entry = running
        .filter(|job| job.id == request.job)
        .map(JobEntry::from)
        .next();
    let repair = store.open()?.repairs().get(request.job);
    Ok(repair.map_or(RepairState::Unknown, |repair| state(&repair, entry)))
}

fn state(repair: &Repair, entry: Option<JobEntry>) -> RepairState {
    let (ended, report) = (repair.ended(), repair.report());
    match ended {
        None => RepairState::Running {
            entry,
            job: repair.job(),
            healed: report.healed,
            left: report.left,
        },
        Some(Ok(())) => RepairState::Complete(report.into()),
        Some(Err(error)) => RepairState::Failed {
            why: error.to_string(),
            cancelled: matches!(error, RepairError::Store(Error::Cancelled)),
            done: report.into(),
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
