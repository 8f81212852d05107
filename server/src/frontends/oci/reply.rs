//! Answers of the registry.
//!
//! Owns: [`Reply`], its usual forms, and the headers of every answer.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, response};
use tonnage_engine::Digest;

use super::error::Failure;
use super::headers::DOCKER_CONTENT_DIGEST;
use crate::frontends::body::Body;
use crate::frontends::error_body::JSON;
use crate::transport::headers;
use crate::transport::request_id::{RequestId, X_REQUEST_ID};

/// The outcome of a handler.
pub(super) type Reply = Result<Response<Body>, Failure>;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Room for the headers of an answer with content.
pub(super) const CONTENT_HEADERS: usize = 12;

/// Adds the headers that every answer has, and removes the body where the method requires it.
pub(super) fn finish(response: &mut Response<Body>, method: &Method, id: &RequestId) {
    let fields = response.headers_mut();
    set_fixed_headers(fields);
    set_id(fields, id);
    headers::strip_body(response, method, Body::empty());
}

/// Adds the headers that are the same in every answer.
pub(super) fn set_fixed_headers(fields: &mut HeaderMap) {
    fields.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers::set_browser_protection(fields);
}

/// Adds the id of the request.
pub(super) fn set_id(fields: &mut HeaderMap, id: &RequestId) {
    fields.insert(X_REQUEST_ID, id.to_header());
}

/// Builds an answer that only lists the allowed methods.
pub(super) fn methods(allowed: &'static str) -> Reply {
    let builder = Response::builder().status(StatusCode::NO_CONTENT);
    Ok(builder.header(header::ALLOW, allowed).body(Body::empty())?)
}

/// Begins an answer with the digest of its content.
pub(super) fn with_digest(status: StatusCode, digest: Digest) -> response::Builder {
    let mut builder = Response::builder().status(status);
    if let Some(headers) = builder.headers_mut() {
        headers.reserve(CONTENT_HEADERS);
    }
    builder.header(DOCKER_CONTENT_DIGEST, digest.to_string())
}

/// Builds a JSON answer.
pub(super) fn json(status: StatusCode, text: Bytes) -> Reply {
    json_with(Response::builder().status(status), JSON, text)
}

/// Builds a JSON answer of another media type, or with more headers.
pub(super) fn json_with(builder: response::Builder, media_type: HeaderValue, text: Bytes) -> Reply {
    let builder = builder
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, text.len());
    Ok(builder.body(Body::full(text))?)
}
