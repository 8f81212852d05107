//! The front end of the admin listener: metrics and health.
//!
//! Owns: `/metrics`, `/healthz` (the process answers) and `/readyz` (it takes requests).
//! Refuses: anything about the registry's content.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use http::{StatusCode, header};
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

use crate::frontends::error_body;
use crate::registry::Registry;
use crate::registry::ports::Condition;
use crate::telemetry::Metrics;
use crate::transport::front_end::{AnswerMemory, Client, FrontEnd, Service};
use crate::transport::host::HostPolicy;
use crate::transport::{head_check, headers, request_id};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone)]
pub(crate) struct ProbeState {
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled when the server stops taking connections.
    pub(crate) draining: CancellationToken,
}

/// The front end of the admin listener.
#[derive(Debug)]
pub(crate) struct Probes(Router);

/// The service of one connection.
#[derive(Debug, Clone)]
pub(crate) struct ProbesService(Router);

impl Probes {
    /// Creates a front end that reports on `state` to requests for these hosts.
    pub(crate) fn new(state: ProbeState, hosts: HostPolicy) -> Self {
        Self(router(state, hosts))
    }
}

impl FrontEnd for Probes {
    type Service = ProbesService;

    fn service(&self) -> ProbesService {
        ProbesService(self.0.clone())
    }
}

impl Service for ProbesService {
    type Body = Body;
    type Answer = BoxFuture<'static, Response>;

    fn answer(&self, request: hyper::Request<Incoming>, _: Client) -> Self::Answer {
        let service = TowerToHyperService::new(self.0.clone());
        Box::pin(async move {
            let answered = hyper::service::Service::call(&service, request).await;
            answered.unwrap_or_else(|never| match never {})
        })
    }

    fn answer_memory(&self) -> Option<Arc<dyn AnswerMemory>> {
        None
    }
}

fn router(state: ProbeState, hosts: HostPolicy) -> Router {
    let hosts = Arc::new(hosts);
    let check = move |request: Request, next: Next| {
        let hosts = Arc::clone(&hosts);
        async move {
            let (head, body) = request.into_parts();
            match head_check::check(&head, &hosts) {
                Ok(_) => next.run(Request::from_parts(head, body)).await,
                Err(refused) => {
                    let id = request_id::of(&head.headers);
                    error_body::of_head(&refused, id.as_str()).map(Body::new)
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
            headers::set_browser_protection(response.headers_mut());
            response
        }))
        .with_state(state)
}

async fn metrics(State(state): State<ProbeState>) -> impl IntoResponse {
    state
        .metrics
        .set_condition(state.registry.condition().await);
    match state.metrics.encode() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "encoding metrics failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Answers `/readyz`. A store that is read-only, or whose disk is nearly full, still serves pulls, so it counts as
/// ready; the body and a metric report it.
async fn ready(State(state): State<ProbeState>) -> impl IntoResponse {
    if state.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    match state.registry.condition().await {
        Condition::Ready => (StatusCode::OK, "ready\n"),
        Condition::NearlyFull => (
            StatusCode::OK,
            "pushes are refused: the disk is nearly full; free space or delete content\n",
        ),
        Condition::ReadOnly => (
            StatusCode::OK,
            "read-only: the storage failed a write; see the log\n",
        ),
        Condition::Closed => (StatusCode::SERVICE_UNAVAILABLE, "closed\n"),
    }
}
