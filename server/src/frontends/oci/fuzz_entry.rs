//! Entry points for tests: all parsers of a request's head, and the table of routes. Compiled only with the feature
//! `fuzz-entry`.
//!
//! Owns: [`Head`].
//! Refuses: parsing of its own; it calls only the parsers that serve requests.

use http::header;
use http::request::Parts;
use http_body::Body as _;
use tonnage_engine::Digest;

use super::namespace::Scope;
use super::route::{self, Resource, Route};
use super::{conditional, content, headers, uploads};
use crate::access;
use crate::oci::{Algorithm, MediaType, Page, RangeAnswer, RepositoryName, Tag};
use crate::transport::host::HostPolicy;
use crate::transport::{head_check, query, request_id};

/// The result of the parsers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The canonical path of the route; `None` where there is no such route.
    pub path: Option<String>,
    /// Size of the error body where there is no such route.
    pub refusal_bytes: u64,
    /// The request's id.
    pub request_id: String,
}

/// Returns the template of every route with its methods.
pub fn routes() -> Vec<(&'static str, Vec<&'static str>)> {
    let all = Resource::ALL.iter();
    all.map(|resource| {
        (
            resource.template(),
            resource.methods().split(", ").collect(),
        )
    })
    .collect()
}

/// Parses all that a handler may read of a request before its body. `digest` names the content for conditions.
pub fn read_head(head: &Parts, digest: Digest, mirror_of: &[String]) -> Head {
    let id = request_id::of(&head.headers);
    let mut read = Head {
        path: None,
        refusal_bytes: 0,
        request_id: id.as_str().to_owned(),
    };
    let loopback = HostPolicy::new(([127, 0, 0, 1], 0).into(), Vec::new());
    drop(head_check::check(head, &loopback));
    match route::parse(head.uri.path()) {
        Ok(route) => {
            let _ = route.resource().allows(&head.method);
            drop(Scope::of(head, &route, mirror_of));
            read.path = Some(path_of(&route));
        }
        Err(error) => {
            let answer = error
                .into_failure(&head.method)
                .into_response(&read.request_id);
            read.refusal_bytes = answer.body().size_hint().upper().unwrap_or(u64::MAX);
        }
    }
    read_query(head);
    read_headers(head, digest);
    read
}

fn read_query(head: &Parts) {
    let first = |name| query::first(head, name);
    drop(Page::new(first("n").as_deref(), first("last").as_deref()));
    for name in ["digest", "mount", "last"] {
        drop(first(name).map(|text| text.parse::<Digest>()));
    }
    drop(first("from").map(|text| text.parse::<RepositoryName>()));
    let _ = first("digest-algorithm").and_then(|name| Algorithm::from_name(&name));
    for scope in query::all(head, "scope") {
        drop(scope.parse::<access::Scope>());
    }
    for tag in query::all(head, "tag") {
        drop(tag.parse::<Tag>());
    }
    if let Some(filter) = first("artifactType") {
        drop(query::encode([("artifactType", &*filter)]));
    }
}

fn read_headers(head: &Parts, digest: Digest) {
    drop(access::fuzz_entry::authorization(head));
    let given = &head.headers;
    let _ = conditional::not_modified(given, digest);
    let _ = conditional::if_match_fails(given, digest);
    let _ = conditional::range_applies(given, digest);
    drop(conditional::precondition(given));
    drop(uploads::chunk(given));
    if let Some(range) = content::single_value(given, &header::RANGE) {
        drop(RangeAnswer::of(range, 1 << 20));
    }
    let media_type = given.get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok());
    drop(media_type.map(str::parse::<MediaType>));
}

fn path_of(route: &Route) -> String {
    match route {
        Route::Base => "/v2/".to_owned(),
        Route::Token => access::TOKEN_PATH.to_owned(),
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::Tags { name } => format!("/v2/{name}/tags/list"),
        Route::Manifest { name, reference } => format!("/v2/{name}/manifests/{reference}"),
        Route::Blob { name, digest } => headers::blob_location(name, *digest),
        Route::Uploads { name } => format!("/v2/{name}/blobs/uploads/"),
        Route::Upload { name, id } => headers::upload_location(name, *id),
        Route::Referrers { name, subject } => format!("/v2/{name}/referrers/{subject}"),
    }
}
