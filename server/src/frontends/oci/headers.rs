//! Headers of the registry's answers.
//!
//! Owns: their names and forms. Locations and links are relative, so they are correct behind any proxy.

use http::HeaderName;
use tonnage_engine::vocabulary::{Digest, UploadId};

use crate::oci::RepositoryName;

pub(super) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");
pub(super) const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(super) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(super) const OCI_CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
pub(super) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Returns the location at which an upload is continued.
pub(super) fn upload_location(name: &RepositoryName, id: UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// Returns the location of a blob.
pub(super) fn blob_location(name: &RepositoryName, digest: Digest) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

/// Returns the location of a manifest.
pub(super) fn manifest_location(name: &RepositoryName, digest: Digest) -> String {
    format!("/v2/{name}/manifests/{digest}")
}

/// Returns the `Range` of an upload. An empty upload has `0-0`, like one of one byte, because clients fail on `0--1`.
pub(super) fn upload_range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

/// Returns the `Link` to the next page (RFC 8288).
pub(super) fn next_link(path: &str, query: &str) -> String {
    format!("<{path}?{query}>; rel=\"next\"")
}
