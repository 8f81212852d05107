//! Headers of answers.
//!
//! Owns: their names and forms, and what every answer has or must not have. Locations and links are relative, so that no proxy in
//! front can make them wrong.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, response};
use http_body::Body as _;
use tonnage_engine::Digest;
use tonnage_engine::upload::UploadId;

use super::Reply;
use super::body::Body;
use super::request_id::X_REQUEST_ID;
use crate::oci::RepositoryName;

pub(super) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");
pub(super) const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(super) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(super) const OCI_CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
pub(super) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Room for the headers of an answer with content.
const CONTENT_HEADERS: usize = 12;

/// The elements of a header that is a list, over all its lines (RFC 9110 section 5.6.1).
pub(super) fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter();
    let elements = lines.flat_map(|line| line.to_str().unwrap_or_default().split(','));
    elements.map(str::trim)
}

/// Makes an answer to a request with this method ready to be sent.
pub(super) fn finish(response: &mut Response<Body>, method: &Method, request_id: &str) {
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    protect(headers);
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(X_REQUEST_ID, id);
    }
    strip(response, method);
}

/// Tells browsers to run nothing of an answer: content is whatever anybody pushed.
pub(super) fn protect(headers: &mut HeaderMap) {
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    let nothing = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
}

/// Removes the body where the method or the status allows none (RFC 9110 sections 9.3.2 and 6.4.1). hyper does so for HTTP/1.1 only, and
/// over HTTP/2 such a body is a protocol error.
fn strip(response: &mut Response<Body>, method: &Method) {
    let status = response.status();
    let never = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if never {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    } else if *method == Method::HEAD {
        let length = response.body().size_hint().exact().unwrap_or(0);
        let headers = response.headers_mut();
        headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    } else {
        return;
    }
    *response.body_mut() = Body::empty();
}

/// An answer that is nothing but the methods that may be used.
pub(super) fn methods(allowed: &'static str) -> Reply {
    let builder = Response::builder().status(StatusCode::NO_CONTENT);
    Ok(builder.header(header::ALLOW, allowed).body(Body::empty())?)
}

/// An answer with its digest.
pub(super) fn with_digest(status: StatusCode, digest: Digest) -> response::Builder {
    let mut builder = Response::builder().status(status);
    if let Some(headers) = builder.headers_mut() {
        headers.reserve(CONTENT_HEADERS);
    }
    builder.header(DOCKER_CONTENT_DIGEST, digest.to_string())
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, text: Bytes) -> Reply {
    json_with(Response::builder().status(status), JSON, text)
}

/// A JSON answer of another media type, or with more headers.
pub(super) fn json_with(builder: response::Builder, media_type: HeaderValue, text: Bytes) -> Reply {
    let builder = builder
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, text.len());
    Ok(builder.body(Body::full(text))?)
}

/// Where an upload is continued.
pub(super) fn upload_location(name: &RepositoryName, id: UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// Where a blob is pulled from.
pub(super) fn blob_location(name: &RepositoryName, digest: Digest) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

/// Where a manifest is pulled from.
pub(super) fn manifest_location(name: &RepositoryName, digest: Digest) -> String {
    format!("/v2/{name}/manifests/{digest}")
}

/// `Range` of an upload. An empty one is `0-0` like one of one byte: clients break on `0--1`.
pub(super) fn upload_range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

/// `Link` to the next page (RFC 8288).
pub(super) fn next_link(path: &str, query: &str) -> String {
    format!("<{path}?{query}>; rel=\"next\"")
}
