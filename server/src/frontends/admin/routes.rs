//! The HTTP form of admin operations: one path, a request and its answer in JSON.
//!
//! Owns: [`ADMIN_PATH`], the size of requests, and the status of each error.
//! Refuses: the meaning of requests (`crate::admin`), and bytes of blobs.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{StatusCode, header};
use serde::Serialize;
use tonnage_engine::{Error, Store};

use crate::admin::{AdminError, AdminRequest, OpenStore, execute};

/// The path that takes an [`AdminRequest`] by POST. It names the version of all requests and answers.
pub const ADMIN_PATH: &str = "/v1/admin";
/// Largest request in bytes. It has room for the 1000 tags that a command deletes at once.
const REQUEST_BYTES_MAX: usize = 256 << 10;
const JSON: &str = "application/json";

/// Creates the router for requests about `store`.
pub(super) fn router(store: Store) -> Router {
    Router::new()
        .route(ADMIN_PATH, post(answer))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(OpenStore::new(store))
}

async fn answer(State(store): State<OpenStore>, body: Bytes) -> Response {
    let request: AdminRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    match execute(&store, request).await {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(error) => error_response(&error),
    }
}

/// Maps an error to an answer. A missing name is 404 with a body that names it; an unknown path is 404 without a body.
fn error_response(error: &AdminError) -> Response {
    if let AdminError::NotFound(missing) = error {
        return json(StatusCode::NOT_FOUND, missing);
    }
    let status = error_status(error);
    // Everyone who may send requests may read the store's files, so the cause is no secret.
    (status, format!("{error}\n")).into_response()
}

/// 503 says that nothing was done. After 500 that is not known: the commit of a failed write may be durable.
fn error_status(error: &AdminError) -> StatusCode {
    match error {
        AdminError::Invalid(_) => StatusCode::BAD_REQUEST,
        AdminError::NotFound(_) => StatusCode::NOT_FOUND,
        AdminError::Runs { .. } => StatusCode::CONFLICT,
        AdminError::ReadOnly
        | AdminError::Contended
        | AdminError::Store(Error::NoSpace { .. } | Error::NotAttempted { .. } | Error::Closed) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        AdminError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, JSON)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "encoding the answer of an admin operation failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
