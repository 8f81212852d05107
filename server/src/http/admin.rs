//! The other listener: metrics and health, for operators only.
//!
//! Owns: `/metrics`, `/healthz` (the process answers) and `/readyz` (send it requests).
//! Refuses: anything of the registry's content.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};

use super::host::HostPolicy;
use super::{head_check, headers, request_id};
use crate::registry::Registry;
use crate::registry::ports::Condition;
use crate::telemetry::Metrics;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone)]
pub(super) struct Admin {
    pub(super) registry: Registry,
    pub(super) metrics: Arc<Metrics>,
    /// Set when the server stops taking connections.
    pub(super) draining: Arc<AtomicBool>,
}

pub(super) fn router(admin: Admin, hosts: HostPolicy) -> Router {
    let hosts = Arc::new(hosts);
    let check = move |request: Request, next: Next| {
        let hosts = Arc::clone(&hosts);
        async move {
            let (head, body) = request.into_parts();
            match head_check::check(&head, &hosts) {
                Ok(_) => next.run(Request::from_parts(head, body)).await,
                Err(refused) => {
                    let id = request_id::of(&head.headers);
                    refused.into_response(&id).map(Body::new)
                }
            }
        }
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .layer(from_fn(check))
        .layer(map_response(async |mut response: Response| {
            headers::protect(response.headers_mut());
            response
        }))
        .with_state(admin)
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    admin.metrics.set_condition(admin.registry.condition());
    admin.metrics.set_io_counts(&admin.registry.io_counts());
    match admin.metrics.encode() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "encoding metrics failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A store that only reads still serves pulls, so it stays in rotation; the body and a metric say so.
async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    match admin.registry.condition() {
        Condition::Ready => (StatusCode::OK, "ready\n"),
        Condition::ReadOnly => (
            StatusCode::OK,
            "read-only: the storage failed a write; see the log\n",
        ),
        Condition::Closed => (StatusCode::SERVICE_UNAVAILABLE, "closed\n"),
    }
}
