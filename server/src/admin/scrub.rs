//! Scrub on request.
//!
//! Owns: [`StartScrub`] and [`GetScrub`] with their answers, and the names of what needs damaged blobs.
//! Refuses: reading and marking, which the engine does, and how far a pass is (`jobs`).

use serde::{Deserialize, Serialize};
use tonnage_engine::{Digest, Error, NeededBy, ScrubReport, ScrubRequest, Store};

use super::error::AdminError;
use super::jobs::JobEntry;
use super::store::AdminStore;

/// Most damaged blobs that an answer lists.
const LISTED_MAX: usize = 1000;
/// Most names of each kind that are listed for one of them.
const NAMES_MAX: usize = 100;

/// Requests one pass of scrub, which runs beside all other work.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct StartScrub {
    /// Whether to compute digests, too.
    pub digests: bool,
    /// Most bytes to read in a second; 0 for no limit.
    pub bytes_per_second: u64,
}

/// A pass that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedScrub {
    /// The number of its job.
    pub job: u64,
}

/// Requests the state of a pass.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct GetScrub {
    /// The number of its job.
    pub job: u64,
}

/// The state of a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ScrubState {
    /// It runs, or is paused.
    Running(JobEntry),
    /// It is complete.
    Complete(ScrubbedStore),
    /// An operator cancelled it.
    Cancelled,
    /// It could not be completed.
    Failed {
        /// Why.
        why: String,
    },
    /// No such pass is known: the server was restarted, or the result is too old.
    Unknown,
}

/// What a pass read and found. [`ScrubReport`] describes each number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are the engine's, which describes them"
)]
pub struct ScrubbedStore {
    pub segments: u64,
    pub blobs: u64,
    pub bytes: u64,
    pub damaged: u64,
    pub skipped: u64,
    /// The first damaged blobs, at most 1000.
    pub listed: Vec<DamagedBlob>,
}

/// A damaged blob and what needs it, at most 100 names of each kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedBlob {
    /// Its digest.
    pub digest: String,
    /// Repositories in which it is visible.
    pub repositories: Vec<String>,
    /// Manifests that need it, as `repository@digest`.
    pub manifests: Vec<String>,
    /// Tags that need it, as `repository:tag`.
    pub tags: Vec<String>,
    /// Whether there are more.
    pub more: bool,
}

impl DamagedBlob {
    fn new(digest: &Digest, needed: NeededBy) -> Self {
        let manifests = needed.manifests.into_iter();
        let tags = needed.tags.into_iter();
        Self {
            digest: digest.to_string(),
            repositories: needed.repositories,
            manifests: manifests
                .map(|(name, digest)| format!("{name}@{digest}"))
                .collect(),
            tags: tags.map(|(name, tag)| format!("{name}:{tag}")).collect(),
            more: needed.more,
        }
    }
}

pub(super) fn start_scrub(
    store: &impl AdminStore,
    request: StartScrub,
) -> Result<StartedScrub, AdminError> {
    let job = store.writable()?.start_scrub(ScrubRequest {
        digests: request.digests,
        bytes_per_second: request.bytes_per_second,
        list_max: LISTED_MAX,
    });
    tracing::info!(job, "the operator started a scrub");
    Ok(StartedScrub { job })
}

pub(super) async fn get_scrub(
    store: &impl AdminStore,
    request: GetScrub,
) -> Result<ScrubState, AdminError> {
    let store = store.writable()?;
    // In this order: a result is kept before its job ends.
    let running = store.jobs().into_iter().find(|job| job.id == request.job);
    match store.scrub_result(request.job) {
        Some(Ok(report)) => Ok(ScrubState::Complete(describe(store, report).await?)),
        Some(Err(Error::Cancelled)) => Ok(ScrubState::Cancelled),
        Some(Err(error)) => Ok(ScrubState::Failed {
            why: error.to_string(),
        }),
        None => Ok(running.map_or(ScrubState::Unknown, |job| ScrubState::Running(job.into()))),
    }
}

/// Adds the names that need the damaged blobs.
async fn describe(store: &Store, report: ScrubReport) -> Result<ScrubbedStore, AdminError> {
    let view = store.view();
    let mut listed = Vec::with_capacity(report.listed.len());
    for digest in &report.listed {
        let needed = view.read(|view| view.needed_by(digest, NAMES_MAX)).await?;
        listed.push(DamagedBlob::new(digest, needed));
    }
    Ok(ScrubbedStore {
        segments: report.segments,
        blobs: report.blobs,
        bytes: report.bytes,
        damaged: report.damaged,
        skipped: report.skipped,
        listed,
    })
}
