//! Answers a request as the same one was answered before.
//!
//! Owns: which answers are kept, and which requests get them. Permission, damage and the conditions of a request are
//! decided for each. What only a lease keeps is not kept, because each answer renews the lease.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use tonnage_engine::Digest;

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

/// A kept answer to a request, before it is decided whether the request may have it.
#[derive(Debug)]
pub(super) struct Repeated {
    kept: Arc<KeptAnswer>,
    is_head: bool,
}

/// Returns the revision for which the answer to a request may be kept. `None` if the answer depends on more than method
/// and path.
pub(super) fn revision(state: &OciState, head: &Parts) -> Option<Revision> {
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let is_plain = !head.headers.keys().any(|name| CONDITIONS.contains(name));
    (is_read && is_plain).then(|| state.registry.revision())?
}

/// Answers a request of `caller` without waiting. `None` if it takes the whole path.
pub(super) fn answer_at_once(
    state: &OciState,
    head: &Parts,
    client: &Client,
    caller: &Caller,
) -> Option<(Repeated, Response<Body>)> {
    let repeated = Repeated::find(state, head, revision(state, head)?)?;
    let kept = &*repeated.kept;
    let scope = Scope::of_pull(head, &state.mirror_of);
    scope.check().ok()?;
    let permission = Permission::Pull(&kept.repository);
    let is_permitted = state.gate.grants_at_once(caller, permission) && kept.is_of_token(caller);
    if !is_permitted || state.registry.may_be_damaged(&kept.digest) {
        return None;
    }
    let mut response = repeated.response(state, head, client);
    if let Scope::Mirrored(host) = scope {
        response.headers_mut().insert(OCI_NAMESPACE, host);
    }
    Some((repeated, response))
}

impl Repeated {
    /// Finds the answer to a request that has `revision`.
    pub(super) fn find(state: &OciState, head: &Parts, revision: Revision) -> Option<Self> {
        let is_head = head.method == Method::HEAD;
        let kept = state.kept.find(revision, head.uri.path(), is_head)?;
        Some(Self { kept, is_head })
    }

    /// Returns the digest of its content.
    pub(super) fn digest(&self) -> Digest {
        self.kept.digest
    }

    /// Builds the answer, with an empty id of the request, and counts it as a kept one.
    pub(super) fn response(
        &self,
        state: &OciState,
        head: &Parts,
        client: &Client,
    ) -> Response<Body> {
        let body = match &self.kept.body {
            Some(KeptBody { bytes, kind }) if !self.is_head => {
                if head.version == Version::HTTP_2 {
                    client.keep_stream();
                }
                Body::counted(bytes.clone(), &state.metrics, *kind)
            }
            Some(_) | None => Body::empty(),
        };
        let mut response = Response::new(body);
        response.headers_mut().clone_from(&self.kept.headers);
        state.metrics.count_kept_answer();
        response
    }

    /// Counts and logs the request.
    pub(super) fn record(&self, head: &Parts, id: &RequestId, elapsed: Duration) {
        let counters = if self.is_head {
            &self.kept.heads
        } else {
            &self.kept.gets
        };
        counters.count(elapsed);
        // The span costs more than anything else here, and nothing else is logged in it.
        if request_log::is_on() {
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
    let has_expected_body = body.is_some() != context.is_head();
    if answer.status() != StatusCode::OK
        || !has_expected_body
        || found.needs_lease()
        || !state.kept.is_repeated(revision, path)
    {
        return answer;
    }
    let body = match body {
        // Copied, because the bytes belong to the memory for reads.
        Some((bytes, kind)) => match state.kept.copy_body(bytes) {
            Some(bytes) => Some(KeptBody { bytes, kind }),
            None => return answer,
        },
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
