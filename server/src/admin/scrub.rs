//! Scrub on request.
//!
//! Owns: [`StartScrub`] and [`GetScrub`] with their result, and the names of what needs damaged blobs.
//! Refuses: reading and marking, which the engine does, and which passes run (`started`).

use serde::{Deserialize, Serialize};
use tonnage_engine::{Digest, Error, Job, JobKind, NeededBy, ScrubReport, ScrubRequest, Store};

use super::error::AdminError;
use super::started::{JobState, StartedJob, StartedJobs};

/// Most damaged blobs that an answer lists.
const LISTED_MAX: usize = 1000;
/// Most names of each kind that are listed for one of them.
const NAMES_MAX: usize = 100;

/// Requests one pass of scrub, which runs beside all other work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartScrub {
    /// Whether to compute digests, too.
    pub digests: bool,
    /// Most bytes to read in a second; 0 for no limit.
    pub bytes_per_second: u64,
}

/// Requests the state of a pass.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct GetScrub {
    /// The number of its job.
    pub job: u64,
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
    scrubs: &StartedJobs<StartScrub, ScrubbedStore>,
    request: StartScrub,
) -> Result<StartedJob, AdminError> {
    let store = scrubs.store().clone();
    let work = move |job| async move { JobState::ended(scrub(&store, &job, request).await) };
    scrubs.start(JobKind::Scrub, request, || None, work)
}

async fn scrub(store: &Store, job: &Job, request: StartScrub) -> Result<ScrubbedStore, Error> {
    let request = ScrubRequest {
        digests: request.digests,
        bytes_per_second: request.bytes_per_second,
        list_max: LISTED_MAX,
    };
    let report = store.scrub_as(job, request).await?;
    describe(store, report).await
}

/// Adds the names that need the damaged blobs.
async fn describe(store: &Store, report: ScrubReport) -> Result<ScrubbedStore, Error> {
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
