//! Answers one request.
//!
//! Owns: [`OciFrontEnd`], and the order of checks before a handler. Each resource has its own file; `error` has the
//! only map from errors to statuses, `route` the only parser of paths.
//! Refuses: decisions about content, which `registry` makes.
//!
//! Invariants: framing and host of a request are checked before its path is used; its sender is authenticated before
//! any work is done; permission is checked before the body is read; a digest or name from the path is parsed before
//! use; an answer never has a content-encoding; an unread body is drained within limits.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use super::context::{OciState, RequestContext};
use super::error::Failure;
use super::namespace::{self, Scope};
use super::reply::{self, Reply};
use super::route::{self, Route};
use super::{blobs, catalog, manifests, referrers, tags, token, uploads};
use crate::access::{Ping, Requester};
use crate::frontends::body::Body;
use crate::frontends::error_body;
use crate::registry::Error;
use crate::registry::ports::ReadAccount;
use crate::telemetry::HttpLabels;
use crate::transport::front_end::{AnswerMemory, Client, FrontEnd, Service};
use crate::transport::request_body::RequestBody;
use crate::transport::{head_check, request_id, unread_body};

/// All methods that any path accepts.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The distribution API of one registry.
#[derive(Debug)]
pub(crate) struct OciFrontEnd(pub(crate) Arc<OciState>);

/// The service of one connection.
#[derive(Debug, Clone)]
pub(crate) struct OciService {
    state: Arc<OciState>,
    account: Arc<dyn ReadAccount>,
}

/// Adapts the account of a connection to the transport.
#[derive(Debug)]
struct AccountMemory(Arc<dyn ReadAccount>);

impl AnswerMemory for AccountMemory {
    fn record_progress(&self) {
        self.0.record_progress();
    }

    fn revoked(&self) -> BoxFuture<'static, ()> {
        self.0.revoked()
    }

    fn record_drop(&self) {
        self.0.record_drop();
    }

    fn set_mapping_allowed(&self, is_allowed: bool) {
        self.0.set_mapping_allowed(is_allowed);
    }

    fn used_unchanged(&self, use_bytes: &mut dyn FnMut()) -> bool {
        self.0.used_unchanged(use_bytes)
    }

    fn load_mapped(&self) -> Option<BoxFuture<'static, bool>> {
        self.0.load_mapped()
    }
}

impl FrontEnd for OciFrontEnd {
    type Service = OciService;

    fn service(&self) -> OciService {
        OciService {
            state: Arc::clone(&self.0),
            account: self.0.registry.read_account(),
        }
    }
}

impl Service for OciService {
    type Body = Body;

    fn answer(
        self,
        request: Request<Incoming>,
        client: Client,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        // Taken now and not when the answer is first polled: a drain must not miss a request that was accepted.
        let accepted = self.state.requests.token();
        self.answer_whole(request, client, accepted)
    }

    fn answer_memory(&self) -> Option<Arc<dyn AnswerMemory>> {
        Some(Arc::new(AccountMemory(Arc::clone(&self.account))))
    }
}

impl OciService {
    /// Answers a request. A write continues after its client has disconnected. So no upload stays open until it
    /// expires, and the outcome of every commit is logged and counted.
    async fn answer_whole(
        self,
        request: Request<Incoming>,
        client: Client,
        accepted: TaskTrackerToken,
    ) -> Response<Body> {
        let id = request_id::of(request.headers());
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            let answer = self.handle(request, &client, &id).await;
            drop(accepted);
            return answer;
        }
        let (under_id, method) = (id.clone(), request.method().clone());
        let handling = tokio::spawn(async move {
            let answer = self.handle(request, &client, &under_id).await;
            drop(accepted);
            answer
        });
        match handling.await {
            Ok(response) => response,
            Err(error) => {
                let mut response = Failure::from(Error::internal(error)).into_response(&id);
                reply::finish(&mut response, &method, &id);
                response
            }
        }
    }

    async fn handle(
        &self,
        request: Request<Incoming>,
        client: &Client,
        id: &str,
    ) -> Response<Body> {
        let state = &*self.state;
        let started = Instant::now();
        let (head, incoming) = request.into_parts();
        let route = route::parse(head.uri.path());
        let labels = HttpLabels::new(
            route.as_ref().map_or("unknown", Route::template),
            &head.method,
        );
        // Strings, which a subscriber copies without formatting.
        let method = head.method.as_str();
        let span = tracing::info_span!("request", id, method, route = labels.route);
        let _in_flight = state.metrics.enter();
        let scope = route.as_ref().map_or(Scope::Unscoped, |route| {
            Scope::of(&head, route, &state.mirror_of)
        });
        let mut body = RequestBody::new(&head, incoming, client, state.body_idle, &state.clock);
        let (target, mut response) = match head_check::check(&head, &state.hosts) {
            Ok(target) => {
                let answering = async {
                    if !client.has_request_memory() {
                        return Err(Error::TooManyRequests.into());
                    }
                    let caller = state.gate.authenticate(&head, client.connection());
                    let context = RequestContext {
                        requester: Requester {
                            caller: caller.await?,
                            request_id: id.to_owned(),
                        },
                        state,
                        head: &head,
                        client,
                        account: &self.account,
                        body: &mut body,
                    };
                    answer(context, route, &scope).await
                };
                let reply = answering.instrument(span.clone()).await;
                let failed = |failure: Failure| span.in_scope(|| failure.into_response(id));
                (target, reply.unwrap_or_else(failed))
            }
            Err(refused) => (None, error_body::of_head(&refused, id)),
        };
        state.locations.write(
            response.headers_mut(),
            target.as_ref(),
            client.connection().is_tls,
        );
        if response.status() == StatusCode::UNAUTHORIZED {
            let is_tls = client.connection().is_tls;
            if let Some(base) = state.locations.base(target.as_ref(), is_tls) {
                token::complete_challenge(response.headers_mut(), &base);
            }
        }
        reply::finish(&mut response, &head.method, id);
        if let Scope::Mirrored(host) = scope {
            let headers = response.headers_mut();
            headers.insert(namespace::OCI_NAMESPACE, host);
        }
        unread_body::drain_or_close(body, &head, &state.clock, &mut response);
        let status = response.status();
        // Enters no span if it is not logged.
        let elapsed = started.elapsed();
        state.metrics.answered(&labels, status, elapsed);
        tracing::debug!(parent: &span, status = status.as_u16(), ?elapsed, "answered");
        response
    }
}

async fn answer(
    context: RequestContext<'_>,
    route: Result<Route, route::RouteError>,
    scope: &Scope,
) -> Reply {
    let head = context.head;
    // These address the server and not a path (RFC 9110 sections 9.3.6 and 9.3.7).
    match (&head.method, head.uri.path()) {
        (&Method::OPTIONS, "*") => return reply::methods(METHODS),
        (&Method::CONNECT, _) => return Err(Failure::method_not_allowed(METHODS)),
        _ => {}
    }
    let route = route.map_err(|error| error.into_failure(&head.method))?;
    if !route.resource().allows(&head.method) {
        return Err(Failure::method_not_allowed(route.resource().methods()));
    }
    scope.check()?;
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    match route {
        Route::Blob { name, digest } if reads => blobs::get(&context, name, digest).await,
        Route::Manifest { name, reference } if reads => {
            manifests::get(&context, name, &reference).await
        }
        // Boxed, because a future is as large as its largest state, and every pull would move that much.
        Route::Base
        | Route::Token
        | Route::Catalog
        | Route::Tags { .. }
        | Route::Blob { .. }
        | Route::Manifest { .. }
        | Route::Uploads { .. }
        | Route::Upload { .. }
        | Route::Referrers { .. } => Box::pin(answer_other(context, route)).await,
    }
}

/// Answers requests other than pulls, which [`answer`] has answered: of a blob's path only DELETE is left, of a
/// manifest's PUT and DELETE.
async fn answer_other(context: RequestContext<'_>, route: Route) -> Reply {
    match route {
        Route::Base => ping(&context).await,
        Route::Token => token::handle(context).await,
        Route::Catalog => catalog::list(&context).await,
        Route::Tags { name } => tags::list(&context, name).await,
        Route::Blob { name, digest } => blobs::delete(&context, name, digest).await,
        Route::Manifest { name, reference } => manifests::write(context, name, reference).await,
        Route::Uploads { name } => uploads::begin(context, name).await,
        Route::Upload { name, id } => uploads::handle(context, name, id).await,
        Route::Referrers { name, subject } => referrers::list(&context, name, subject).await,
    }
}

/// Answers `/v2/` (distribution-spec, "Determining Support").
async fn ping(context: &RequestContext<'_>) -> Reply {
    context.authorize(Ping).await?;
    reply::json(StatusCode::OK, b"{}".as_slice().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the size of what a call returns.
    fn size_of_answer<R>(
        _: impl FnOnce(OciService, Request<Incoming>, Client, TaskTrackerToken) -> R,
    ) -> usize {
        size_of::<R>()
    }

    /// Guards: the future of a request stays small, because it is moved for every request of a connection.
    #[test]
    fn the_future_of_a_request_is_small() {
        let size = size_of_answer(OciService::answer_whole);
        assert!(size <= 3584, "{size} bytes");
    }
}
