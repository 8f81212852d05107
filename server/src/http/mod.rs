//! The registry over HTTP: routes, headers, statuses.
//!
//! Owns: [`Api`], which turns one request into one answer. One file per resource; `error` is the only map from errors to
//! statuses, `route` the only reader of paths.
//! Refuses: deciding anything about content; `registry` does.
//!
//! Invariants: a request's framing and host are checked before its path is read; permission is asked before the body is looked at; a
//! digest or name from the path is a type before anything uses it; an answer never has a content-encoding; an unread body is drained
//! within bounds.

mod accept;
mod admin;
mod admission;
mod answer;
mod attended;
mod blobs;
mod body;
mod catalog;
mod conditional;
mod connection;
mod content;
pub(crate) mod control;
#[cfg(feature = "doors")]
pub(crate) mod door;
mod drain;
mod error;
mod frames;
mod head_check;
mod headers;
pub(crate) mod host;
mod limits;
mod linger;
pub(crate) mod locations;
mod manifests;
mod namespace;
mod opening;
pub(crate) mod places;
mod query;
mod receive;
mod referrers;
mod request_id;
mod request_memory;
mod requests;
mod route;
pub(crate) mod server;
mod shares;
mod socket;
mod streams;
mod tags;
mod unsent;
mod uploads;
mod warning;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use ::http::header::EXPECT;
use ::http::{Method, Request, Response, StatusCode, Version, request::Parts};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use self::admission::Admission;
use self::body::{Body, RequestBody};
use self::connection::Client;
use self::error::Failure;
use self::host::HostPolicy;
use self::locations::Locations;
use self::namespace::Scope;
use self::route::Route;
use crate::access::{Caller, Gate, Ping};
use crate::clock::RunningClock;
use crate::registry::ports::{ClientId, HeldMemory, ReadAccount};
use crate::registry::{Error, Registry};
use crate::telemetry::{HttpLabels, Metrics};

type Reply = Result<Response<Body>, Failure>;

/// All methods that some path takes.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Everything a request needs.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) registry: Registry,
    pub(crate) gate: Gate,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) body_idle: std::time::Duration,
    pub(crate) clock: RunningClock,
    pub(crate) manifests: Admission,
    /// Shortest chunk that clients are asked for, if not 0.
    pub(crate) chunk_min_bytes: u64,
    /// Registries whose content is mirrored here; none: `ns` is ignored.
    pub(crate) mirror_of: Vec<String>,
    hosts: HostPolicy,
    locations: Locations,
    /// Dropped with the last request.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) under_way: mpsc::Sender<Infallible>,
}

/// One request on its way through a handler.
struct RequestContext<'a> {
    api: &'a Api,
    head: &'a Parts,
    caller: Caller,
    body: &'a mut RequestBody,
}

impl Api {
    /// Answers a request. One that writes continues when its client goes away, so that an upload is never left to its
    /// expiry and a commit's outcome is always accounted for.
    pub(crate) async fn answer_whole(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let id = request_id::of(request.headers());
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return self.handle(request, &id).await;
        }
        let (under_id, method) = (id.clone(), request.method().clone());
        let handling = tokio::spawn(async move { self.handle(request, &under_id).await });
        match handling.await {
            Ok(response) => response,
            Err(error) => {
                let mut response = Failure::from(Error::internal(error)).into_response(&id);
                headers::finish(&mut response, &method, &id);
                response
            }
        }
    }

    async fn handle(&self, request: Request<Incoming>, id: &str) -> Response<Body> {
        let started = Instant::now();
        let (head, incoming) = request.into_parts();
        let route = route::parse(head.uri.path());
        let labels = HttpLabels::new(
            route.as_ref().map_or("unknown", Route::template),
            &head.method,
        );
        let span =
            tracing::info_span!("request", id = %id, method = %head.method, route = labels.route);
        let _in_flight = self.metrics.enter();
        let scope = route.as_ref().map_or(Scope::Unscoped, |route| {
            Scope::of(&head, route, &self.mirror_of)
        });
        let mut expectations = head.headers.get_all(EXPECT).iter();
        let expected = head.version >= Version::HTTP_11
            && expectations.any(|expectation| !expectation.is_empty());
        let mut body = RequestBody::new(incoming, expected, self.body_idle, &self.clock);
        if let Some(client) = head.extensions.get::<Client>() {
            body.is_of(&client.under_way);
        }
        let (target, reply) = match head_check::check(&head, &self.hosts) {
            Ok(target) => {
                let answering = self.answer(&head, route, &scope, &mut body, id);
                (target, answering.instrument(span.clone()).await)
            }
            Err(failure) => (None, Err(failure)),
        };
        let mut response =
            reply.unwrap_or_else(|failure| span.in_scope(|| failure.into_response(id)));
        self.locations
            .write(response.headers_mut(), target.as_ref());
        headers::finish(&mut response, &head.method, id);
        if let Scope::Mirrored(host) = scope {
            let headers = response.headers_mut();
            headers.insert(namespace::OCI_NAMESPACE, host);
        }
        drain::settle(body, &head, &self.clock, &mut response);
        let status = response.status();
        self.metrics.answered(&labels, status, started.elapsed());
        span.in_scope(
            || tracing::debug!(status = status.as_u16(), elapsed = ?started.elapsed(), "answered"),
        );
        response
    }

    async fn answer(
        &self,
        head: &Parts,
        route: Result<Route, route::RouteError>,
        scope: &Scope,
        body: &mut RequestBody,
        id: &str,
    ) -> Reply {
        let client = head.extensions.get::<Client>();
        if client.is_some_and(|client| client.held.is_none()) {
            return Err(Error::TooManyRequests.into());
        }
        // Questions about the server and not about a path of it (RFC 9110 sections 9.3.6 and 9.3.7).
        match (&head.method, head.uri.path()) {
            (&Method::OPTIONS, "*") => return headers::methods(METHODS),
            (&Method::CONNECT, _) => return Err(Failure::method_not_allowed(METHODS)),
            _ => {}
        }
        let route = route.map_err(|error| error.into_failure(&head.method))?;
        if !route.resource().allows(&head.method) {
            return Err(Failure::method_not_allowed(route.resource().methods()));
        }
        scope.check()?;
        let caller = Caller {
            subject: String::new(),
            request: id.to_owned(),
        };
        let context = RequestContext {
            api: self,
            head,
            caller,
            body,
        };
        match route {
            Route::Base => context.ping(),
            Route::Catalog => catalog::list(&context).await,
            Route::Tags { name } => tags::list(&context, name).await,
            Route::Blob { name, digest } => blobs::handle(&context, name, digest).await,
            Route::Manifest { name, reference } => {
                manifests::handle(context, name, reference).await
            }
            Route::Uploads { name } => uploads::begin(context, name).await,
            Route::Upload { name, id } => uploads::handle(context, name, id).await,
            Route::Referrers { name, subject } => referrers::list(&context, name, subject).await,
        }
    }
}

impl RequestContext<'_> {
    fn registry(&self) -> &Registry {
        &self.api.registry
    }

    fn authorize<A: crate::access::Action>(
        &self,
        action: A,
    ) -> Result<crate::access::Authorized<A>, Error> {
        Ok(self.api.gate.authorize(&self.caller, action)?)
    }

    /// The account of the client's answers, for an answer that takes memory; none where requests do not come from a connection.
    fn account(&self) -> Option<&Arc<dyn ReadAccount>> {
        let client = self.head.extensions.get::<Client>()?;
        client.under_way.upgrade()?.hold_memory();
        client.account.as_ref()
    }

    /// Whose turn this request shares where clients wait in turn.
    fn client(&self) -> ClientId {
        let client = self.head.extensions.get::<Client>();
        client.map(|client| client.id).unwrap_or_default()
    }

    /// Waits for memory for a small answer of up to `bytes` that is not read from a blob.
    async fn hold(&self, bytes: usize) -> Option<Box<dyn HeldMemory>> {
        match self.account() {
            Some(account) => Some(account.hold(true, bytes).await),
            None => None,
        }
    }

    /// The same for a large one.
    async fn hold_large(&self, bytes: usize) -> Option<Box<dyn HeldMemory>> {
        match self.account() {
            Some(account) => Some(account.hold(false, bytes).await),
            None => None,
        }
    }

    fn is_head(&self) -> bool {
        self.head.method == Method::HEAD
    }

    /// distribution-spec, "Determining Support".
    fn ping(&self) -> Reply {
        self.authorize(Ping)?;
        headers::json(StatusCode::OK, b"{}".as_slice().into())
    }
}
