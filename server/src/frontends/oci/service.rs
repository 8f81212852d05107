//! Answers one request.
//!
//! Owns: [`OciFrontEnd`], and the order of checks before a handler. Each resource has its own file; `error` has the
//! only map from errors to statuses, `route` the only parser of paths.
//! Refuses: decisions about content, which `registry` makes.
//!
//! Invariants: framing and host of a request are checked before its path is used; its sender is authenticated before
//! any work is done; permission is checked before the body is read; a digest or name from the path is parsed before
//! use; an answer never has a content-encoding; an unread body is drained within limits.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{self, BoxFuture, Either, Ready};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use super::context::{OciState, RequestContext};
use super::error::Failure;
use super::namespace::{self, Scope};
use super::reply::{self, Reply};
use super::route::{self, Route};
use super::{blobs, catalog, manifests, referrers, repeat, request_log, tags, token, uploads};
use crate::access::{Caller, Ping, Refused, Requester};
use crate::frontends::body::Body;
use crate::frontends::error_body;
use crate::registry::Error;
use crate::registry::ports::ReadAccount;
use crate::telemetry::HttpLabels;
use crate::transport::front_end::{AnswerMemory, Client, FrontEnd, Service};
use crate::transport::head_check::{self, HeadError};
use crate::transport::host::Authority;
use crate::transport::request_body::RequestBody;
use crate::transport::request_id::{self, RequestId};
use crate::transport::unread_body;

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

/// A request whose head was checked.
struct BegunRequest {
    head: Parts,
    incoming: Incoming,
    client: Client,
    id: RequestId,
    started: Instant,
    /// The host that it is for, or why it is rejected.
    target: Result<Option<Authority>, HeadError>,
    /// Who sends it; `None` if that has to be waited for.
    caller: Option<Result<Caller, Refused>>,
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
    /// Known at once, or boxed, so that it is small where hyper moves it.
    type Answer = Either<Ready<Response<Body>>, BoxFuture<'static, Response<Body>>>;

    fn answer(&self, request: Request<Incoming>, client: Client) -> Self::Answer {
        let begun = self.begin(request, client);
        if let Some(response) = self.repeat(&begun) {
            return Either::Left(future::ready(response));
        }
        // Taken now and not when the answer is first polled: a drain must not miss a request that was accepted.
        let accepted = self.state.requests.token();
        Either::Right(Box::pin(self.clone().answer_whole(begun, accepted)))
    }

    fn answer_memory(&self) -> Option<Arc<dyn AnswerMemory>> {
        Some(Arc::new(AccountMemory(Arc::clone(&self.account))))
    }
}

impl OciService {
    /// Checks the head of a request and asks who sends it, without waiting.
    fn begin(&self, request: Request<Incoming>, client: Client) -> BegunRequest {
        let started = Instant::now();
        let (head, incoming) = request.into_parts();
        let id = request_id::of(&head.headers);
        let target = head_check::check(&head, &self.state.hosts);
        let is_admitted = target.is_ok() && client.has_request_memory();
        let caller = is_admitted.then(|| {
            let gate = &self.state.gate;
            gate.authenticate(&head, client.connection()).at_once()
        });
        BegunRequest {
            head,
            incoming,
            client,
            id,
            started,
            target,
            caller: caller.flatten(),
        }
    }

    /// Answers a request as it was answered before. `None` if it takes the whole path.
    fn repeat(&self, begun: &BegunRequest) -> Option<Response<Body>> {
        let (state, head, id) = (&*self.state, &begun.head, &begun.id);
        let caller = begun.caller.as_ref()?.as_ref().ok()?;
        if !begun.incoming.is_end_stream() {
            return None;
        }
        let (repeated, mut response) = repeat::answer_at_once(state, head, &begun.client, caller)?;
        reply::set_id(response.headers_mut(), id);
        repeated.record(head, id, begun.started.elapsed());
        Some(response)
    }

    /// Answers a request. A write continues after its client has disconnected. So no upload stays open until it
    /// expires, and the outcome of every commit is logged and counted.
    async fn answer_whole(self, begun: BegunRequest, accepted: TaskTrackerToken) -> Response<Body> {
        let (method, id) = (begun.head.method.clone(), begun.id.clone());
        let is_read = matches!(method, Method::GET | Method::HEAD);
        let answering = async move {
            let answer = self.answer_anew(begun).await;
            drop(accepted);
            answer
        };
        if is_read {
            return answering.await;
        }
        match tokio::spawn(answering).await {
            Ok(response) => response,
            Err(error) => {
                let failure = Failure::from(Error::internal(error));
                let mut response = failure.into_response(id.as_str());
                reply::finish(&mut response, &method, &id);
                response
            }
        }
    }

    async fn answer_anew(&self, begun: BegunRequest) -> Response<Body> {
        let state = &*self.state;
        let (head, client, id) = (&begun.head, &begun.client, &begun.id);
        let route = route::parse(head.uri.path());
        let labels = HttpLabels::new(
            route.as_ref().map_or("unknown", Route::template),
            &head.method,
        );
        let span = request_log::span(id, &head.method, labels.route);
        let _in_flight = state.metrics.enter();
        let scope = route.as_ref().map_or(Scope::Unscoped, |route| {
            Scope::of(head, route, &state.mirror_of)
        });
        let idle = state.body_idle;
        let mut body = RequestBody::new(head, begun.incoming, client, idle, &state.clock);
        let (target, mut response) = match begun.target {
            Ok(target) => {
                let answering = async {
                    let caller = self.caller(head, client, begun.caller).await?;
                    let context = RequestContext {
                        requester: Requester {
                            caller,
                            request_id: id.as_str().to_owned(),
                        },
                        state,
                        head,
                        client,
                        account: &self.account,
                        body: &mut body,
                    };
                    answer(context, route, &scope).await
                };
                let reply = answering.instrument(span.clone()).await;
                let failed =
                    |failure: Failure| span.in_scope(|| failure.into_response(id.as_str()));
                (target, reply.unwrap_or_else(failed))
            }
            Err(refused) => (None, error_body::of_head(&refused, id.as_str())),
        };
        let is_tls = client.connection().is_tls;
        let fields = response.headers_mut();
        state.locations.write(fields, target.as_ref(), is_tls);
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(base) = state.locations.base(target.as_ref(), is_tls)
        {
            token::complete_challenge(response.headers_mut(), &base);
        }
        reply::finish(&mut response, &head.method, id);
        if let Scope::Mirrored(host) = scope {
            let headers = response.headers_mut();
            headers.insert(namespace::OCI_NAMESPACE, host);
        }
        unread_body::drain_or_close(body, head, &state.clock, &mut response);
        let (status, elapsed) = (response.status(), begun.started.elapsed());
        state.metrics.answered(&labels, status, elapsed);
        request_log::answered(&span, status, elapsed);
        response
    }

    /// Returns who sends a request: the `known` caller, or who it is found to be after a wait.
    async fn caller(
        &self,
        head: &Parts,
        client: &Client,
        known: Option<Result<Caller, Refused>>,
    ) -> Result<Caller, Failure> {
        if !client.has_request_memory() {
            return Err(Error::TooManyRequests.into());
        }
        if let Some(caller) = known {
            return Ok(caller?);
        }
        let gate = &self.state.gate;
        let caller = gate.authenticate(head, client.connection());
        Ok(caller.wait().await??)
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

    /// Guards: what hyper moves for every request of a connection stays small.
    #[test]
    fn an_answer_is_small() {
        let size = size_of::<<OciService as Service>::Answer>();
        assert!(size <= 256, "{size} bytes");
    }
}
