//! Answers a request as the same one was answered before.
//!
//! Owns: what must hold for that, and the form of the answer. Permission, damage and the conditions of a request are
//! decided for each; what only a lease keeps is not kept, because each answer renews the lease.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use tracing::Level;

use super::context::{OciState, RequestContext};
use super::kept_answers::{KeptAnswer, KeptBody};
use super::namespace::{OCI_NAMESPACE, Scope};
use super::route::Resource;
use super::{reply, request_log};
use crate::access::{Caller, Permission};
use crate::frontends::body::Body;
use crate::oci::RepositoryName;
use crate::registry::Found;
use crate::registry::ports::Revision;
use crate::telemetry::HttpLabels;
use crate::transport::front_end::Client;
use crate::transport::request_id::{RequestId, X_REQUEST_ID};

/// Headers of a request on which the answer depends, beside its method and path.
const CONDITIONS: [HeaderName; 3] = [header::RANGE, header::IF_MATCH, header::IF_NONE_MATCH];

/// A kept answer to a request.
#[derive(Debug)]
pub(super) struct Repeated {
    kept: Arc<KeptAnswer>,
    scope: Scope,
    is_head: bool,
}

/// Returns whether the answer depends only on the method and path of a request.
pub(super) fn is_plain(request: &HeaderMap) -> bool {
    !request.keys().any(|name| CONDITIONS.contains(name))
}

impl Repeated {
    /// Finds the answer to a request of `caller`, without waiting. `None` if it has to be answered anew.
    pub(super) fn find(state: &OciState, head: &Parts, caller: &Caller) -> Option<Self> {
        let is_head = head.method == Method::HEAD;
        if !(is_head || head.method == Method::GET) || !is_plain(&head.headers) {
            return None;
        }
        let revision = state.registry.revision()?;
        let kept = state.kept.find(revision, head.uri.path(), is_head)?;
        let scope = Scope::of_pull(head, &state.mirror_of);
        scope.check().ok()?;
        let permission = Permission::Pull(&kept.repository);
        let is_permitted =
            state.gate.grants_at_once(caller, permission) && kept.is_of_token(caller);
        let is_intact = !state.registry.may_be_damaged(&kept.digest);
        (is_permitted && is_intact).then_some(Self {
            kept,
            scope,
            is_head,
        })
    }
}

impl Repeated {
    /// Builds the answer.
    pub(super) fn response(
        &self,
        state: &OciState,
        client: &Client,
        version: Version,
        id: RequestId,
    ) -> Response<Body> {
        let body = match &self.kept.body {
            Some(KeptBody { bytes, kind }) if !self.is_head => {
                if version == Version::HTTP_2 {
                    // Its stream is reset if its client leaves it unread.
                    client.hold_answer_memory();
                }
                Body::counted(bytes.clone(), &state.metrics, *kind)
            }
            Some(_) | None => Body::empty(),
        };
        let mut response = Response::new(body);
        let fields = response.headers_mut();
        fields.clone_from(&self.kept.headers);
        reply::set_id(fields, id.into_header());
        if let Scope::Mirrored(host) = &self.scope {
            fields.insert(OCI_NAMESPACE, host.clone());
        }
        response
    }

    /// Counts and logs the answer.
    pub(super) fn record(&self, state: &OciState, head: &Parts, id: &RequestId, elapsed: Duration) {
        let counters = if self.is_head {
            &self.kept.heads
        } else {
            &self.kept.gets
        };
        counters.count(elapsed);
        state.metrics.count_kept_answer();
        // The span costs more than anything else here, and nothing else is logged in it.
        if tracing::enabled!(Level::DEBUG) {
            let span = request_log::span(id, &head.method, self.kept.route);
            request_log::answered(&span, StatusCode::OK, elapsed);
        }
    }
}

impl KeptAnswer {
    /// Returns whether the token of `caller`, if it has one, was issued for the repository of the answer.
    fn is_of_token(&self, caller: &Caller) -> bool {
        let scope = caller.scope.as_ref();
        let expected = scope.and_then(|scope| scope.incarnation(&self.repository));
        expected.is_none_or(|expected| self.incarnation == Some(expected))
    }
}

/// Keeps the answer to a pull from `repository` if it is small and the request is repeated. `revision` is one from
/// before the content was looked up.
pub(super) async fn keep(
    context: &RequestContext<'_>,
    revision: Revision,
    repository: &RepositoryName,
    found: &Found,
    answer: Response<Body>,
) -> Response<Body> {
    let (state, path) = (context.state, context.head.uri.path());
    let body = answer.body().whole_transfer();
    let is_like_request = body.is_some() != context.is_head();
    if answer.status() != StatusCode::OK
        || !is_like_request
        || found.needs_lease()
        || !state.kept.is_repeated(revision, path)
    {
        return answer;
    }
    // Copied, because the bytes belong to the memory for reads.
    let copied = body.map(|(bytes, kind)| {
        let bytes = state.kept.copy_body(bytes)?;
        Some(KeptBody { bytes, kind })
    });
    let body = match copied {
        Some(None) => return answer,
        Some(Some(body)) => Some(body),
        None => None,
    };
    let Ok(incarnation) = context.registry().incarnation(repository).await else {
        return answer;
    };
    let resource = match found.media_type {
        Some(_) => Resource::Manifest,
        None => Resource::Blob,
    };
    let route = resource.template();
    let counters = |method| {
        let labels = HttpLabels::new(route, &method);
        state.metrics.counters(&labels, StatusCode::OK)
    };
    let mut headers = answer.headers().clone();
    reply::set_fixed_headers(&mut headers);
    headers.insert(X_REQUEST_ID, HeaderValue::from_static(""));
    let kept = KeptAnswer {
        repository: repository.clone(),
        incarnation,
        digest: found.digest,
        headers,
        body,
        route,
        gets: counters(Method::GET),
        heads: counters(Method::HEAD),
    };
    state.kept.insert(revision, path, &Arc::new(kept));
    answer
}
