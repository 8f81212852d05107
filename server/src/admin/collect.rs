//! Collection on request.
//!
//! Owns: [`StartCollection`] and [`GetCollection`] with their result. Refuses: the rules, which the engine has, and
//! which jobs run (`started`).

use serde::{Deserialize, Serialize};
use tonnage_engine::{CollectionReport, CollectionRequest, CompactionReport, Job, JobKind, Store};

use super::error::AdminError;
use super::started::{JobState, StartedJob, StartedJobs};

/// Most blobs, and most manifests, that an answer lists.
const LISTED_MAX: usize = 10_000;

/// Requests one cycle of collection, and perhaps a compaction, beside all other work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartCollection {
    /// Whether to find what would be removed only, and remove nothing.
    pub dry_run: bool,
    /// Whether to compact shared segments too.
    pub full: bool,
}

/// Requests the state of such a collection.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct GetCollection {
    /// The number of its job.
    pub job: u64,
}

/// What a cycle found and did. [`CollectionReport`] describes each number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are the engine's, which describes them"
)]
pub struct CollectedGarbage {
    pub suspects: u64,
    pub cleared: u64,
    pub in_grace: u64,
    pub leased: u64,
    pub manifests: u64,
    pub blobs: u64,
    pub bytes: u64,
    pub segments: u64,
    pub compaction: Compacted,
    /// The first blobs, at most 10,000.
    pub listed: Vec<CollectedBlob>,
    /// The first manifests, at most 10,000.
    pub listed_manifests: Vec<CollectedManifest>,
}

/// What compaction did. [`CompactionReport`] describes each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are the engine's, which describes them"
)]
pub struct Compacted {
    pub segments: u64,
    pub blobs: u64,
    pub moved_bytes: u64,
    pub freed_bytes: u64,
    pub left: u64,
}

/// A blob that was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectedBlob {
    /// Its digest.
    pub digest: String,
    /// Its payload bytes.
    pub bytes: u64,
}

/// A manifest that was removed from its repository, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectedManifest {
    /// The name of the repository.
    pub repository: String,
    /// Its digest.
    pub digest: String,
}

impl From<CollectionReport> for CollectedGarbage {
    fn from(report: CollectionReport) -> Self {
        let listed = report.listed.iter().map(|blob| CollectedBlob {
            digest: blob.digest.to_string(),
            bytes: blob.bytes,
        });
        let manifests = report.listed_manifests.into_iter();
        let manifests = manifests.map(|manifest| CollectedManifest {
            repository: manifest.repository,
            digest: manifest.digest.to_string(),
        });
        Self {
            suspects: report.suspects,
            cleared: report.cleared,
            in_grace: report.in_grace,
            leased: report.leased,
            manifests: report.manifests,
            blobs: report.blobs,
            bytes: report.bytes,
            segments: report.segments,
            compaction: report.compaction.into(),
            listed: listed.collect(),
            listed_manifests: manifests.collect(),
        }
    }
}

impl From<CompactionReport> for Compacted {
    fn from(report: CompactionReport) -> Self {
        Self {
            segments: report.segments,
            blobs: report.blobs,
            moved_bytes: report.moved_bytes,
            freed_bytes: report.freed_bytes,
            left: report.left,
        }
    }
}

/// Starts a collection. `was_closed` says whether no server had the store open until now.
pub(super) fn start_collection(
    collections: &StartedJobs<StartCollection, CollectedGarbage>,
    request: StartCollection,
    was_closed: bool,
) -> Result<StartedJob, AdminError> {
    let store = collections.store().clone();
    let cycle = CollectionRequest {
        dry_run: request.dry_run,
        full: request.full,
        was_closed,
        list_max: LISTED_MAX,
    };
    let work = |job| async move { collect(&store, &job, cycle).await };
    collections.start(JobKind::Collection, request, || None, work)
}

/// Runs both phases. If the second one ends early, the first one's report stands.
async fn collect(
    store: &Store,
    job: &Job,
    request: CollectionRequest,
) -> JobState<CollectedGarbage> {
    let mut report = match store.collect_as(job, request).await {
        Ok(report) => report,
        Err(error) => return JobState::failed(&error, None),
    };
    let mut ended = Ok(());
    if request.full && !request.dry_run {
        match store.compact_as(job).await {
            Ok(compaction) => report.compaction = compaction,
            Err(error) => ended = Err(error),
        }
    }
    if !request.dry_run {
        log(&report);
    }
    match ended {
        Ok(()) => JobState::Complete(report.into()),
        Err(error) => JobState::failed(&error, Some(report.into())),
    }
}

fn log(report: &CollectionReport) {
    let CollectionReport {
        manifests,
        blobs,
        bytes,
        segments,
        ..
    } = *report;
    let compacted = report.compaction.segments;
    if manifests + blobs + segments + compacted > 0 {
        tracing::info!(
            manifests,
            blobs,
            bytes,
            segments,
            compacted,
            "the operator collected garbage"
        );
    }
}
