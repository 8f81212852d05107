//! What the operator's socket is asked, and its answers.
//!
//! Owns: [`router`], the paths and the sizes of requests, and [`Stats`].
//! Refuses: the meaning of requests (`operator`), and bytes of blobs.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonnage_engine::{Error, Store, StoreStats};

use crate::operator::{self, Refusal};

/// Path of the numbers of a store.
pub const STATS_PATH: &str = "/v1/stats";
/// Path of a page of repositories.
pub const LIST_REPOSITORIES_PATH: &str = "/v1/repositories/list";
/// Path to delete a repository.
pub const DELETE_REPOSITORY_PATH: &str = "/v1/repositories/delete";
/// Path of a page of tags.
pub const LIST_TAGS_PATH: &str = "/v1/tags/list";
/// Path to delete tags.
pub const DELETE_TAGS_PATH: &str = "/v1/tags/delete";
/// Largest request in bytes: the thousand tags that a command deletes at once.
const REQUEST_BYTES_MAX: usize = 256 << 10;
/// Version of the layout of answers; it grows when a field changes its meaning or is removed.
const VERSION: u32 = 1;
const JSON: &str = "application/json";

/// The numbers of a store; [`StoreStats`] says what each means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are the engine's, which describes them"
)]
pub struct Stats {
    pub lsn: u64,
    pub repositories: u64,
    pub blobs: u64,
    pub blob_bytes: u64,
    pub segments: u64,
    pub uploads: u64,
    pub delta_bytes: u64,
    pub disk_total_bytes: u64,
    pub disk_available_bytes: u64,
    pub poisoned: bool,
}

impl From<StoreStats> for Stats {
    fn from(stats: StoreStats) -> Self {
        Self {
            lsn: stats.lsn.0,
            repositories: stats.repositories,
            blobs: stats.blobs,
            blob_bytes: stats.blob_bytes,
            segments: stats.segments,
            uploads: stats.uploads,
            delta_bytes: stats.delta_bytes,
            disk_total_bytes: stats.disk_total_bytes,
            disk_available_bytes: stats.disk_available_bytes,
            poisoned: stats.poisoned,
        }
    }
}

/// The answer to [`STATS_PATH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsAnswer {
    /// Version of this layout.
    pub version: u32,
    /// The numbers.
    #[serde(flatten)]
    pub stats: Stats,
}

/// Answers about `store`.
pub(super) fn router(store: Store) -> Router {
    Router::new()
        .route(STATS_PATH, get(stats))
        .route(LIST_REPOSITORIES_PATH, post(list_repositories))
        .route(DELETE_REPOSITORY_PATH, post(delete_repository))
        .route(LIST_TAGS_PATH, post(list_tags))
        .route(DELETE_TAGS_PATH, post(delete_tags))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(store)
}

async fn stats(State(store): State<Store>) -> Response {
    match count(&store).await {
        Ok(answer) => ([(header::CONTENT_TYPE, JSON)], answer).into_response(),
        Err(error) => {
            tracing::error!(%error, "the store could not be counted");
            // Whoever may ask may read the store's files, so the cause is no secret.
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

async fn list_repositories(State(store): State<Store>, request: Bytes) -> Response {
    answer(&request, async |asked: operator::ListRepositories| {
        operator::repositories(&store.view(), &asked).await
    })
    .await
}

async fn list_tags(State(store): State<Store>, request: Bytes) -> Response {
    answer(&request, async |asked: operator::ListTags| {
        operator::tags(&store.view(), &asked).await
    })
    .await
}

async fn delete_repository(State(store): State<Store>, request: Bytes) -> Response {
    answer(&request, async |asked: operator::DeleteRepository| {
        if asked.dry_run {
            operator::holdings(&store.view(), &asked.repository).await
        } else {
            run_to_completion(async move {
                operator::delete_repository(&store, &asked.repository).await
            })
            .await
        }
    })
    .await
}

async fn delete_tags(State(store): State<Store>, request: Bytes) -> Response {
    answer(&request, async |asked: operator::DeleteTags| {
        let tags = if asked.dry_run {
            operator::find_tags(&store.view(), &asked.repository, &asked.tags).await
        } else {
            let deletion =
                async move { operator::delete_tags(&store, &asked.repository, &asked.tags).await };
            run_to_completion(deletion).await
        };
        Ok(operator::DeletedTags { tags: tags? })
    })
    .await
}

/// Runs a deletion as a task of its own: it continues, and is logged, after its client has disconnected.
async fn run_to_completion<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let ended = tokio::spawn(work).await;
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "the operator's request was cut off");
        Err(Refusal::Failed(Error::Closed))
    })
}

/// Answers a request. What is missing is 404 with a body that says so; an unknown path is 404 without one.
async fn answer<Q: DeserializeOwned, A: Serialize>(
    request: &[u8],
    ask: impl AsyncFnOnce(Q) -> Result<A, Refusal>,
) -> Response {
    let asked = match serde_json::from_slice(request) {
        Ok(asked) => asked,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    match ask(asked).await {
        Ok(found) => json(StatusCode::OK, &found),
        Err(Refusal::Missing(missing)) => json(StatusCode::NOT_FOUND, &missing),
        Err(Refusal::Failed(error)) => {
            tracing::error!(%error, "the operator's request failed");
            let refused = matches!(
                error,
                Error::NoSpace { .. } | Error::NotAttempted { .. } | Error::Poisoned { .. }
            );
            let status = if refused {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            (status, format!("{error}\n")).into_response()
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, JSON)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the answer to the operator could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn count(store: &Store) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let answer = StatsAnswer {
        version: VERSION,
        stats: store.stats().await?.into(),
    };
    Ok(serde_json::to_vec(&answer)?)
}
