//! `/v2/<name>/blobs/<digest>`

use http::{StatusCode, header};

use super::content::{self, Caching};
use super::context::RequestContext;
use super::reply::{self, Reply};
use crate::access::{Delete, Pull};
use crate::frontends::body::Body;
use crate::oci::{Digest, RepositoryName};
use crate::registry::Error;

/// Answers GET and HEAD. An answer without bytes promises that the blob exists, so it takes a lease.
pub(super) async fn get(
    context: &RequestContext<'_>,
    name: RepositoryName,
    digest: Digest,
) -> Reply {
    let pull = context.authorize(Pull(name)).await?;
    let registry = context.registry();
    // A 304 has no bytes either.
    let sends_none = context.is_head() || context.head.headers.contains_key(header::IF_NONE_MATCH);
    let found = if sends_none {
        registry.find_and_lease_blob(&pull, digest).await?
    } else {
        registry.find_blob(&pull, digest).await?
    };
    let gone = || Error::BlobUnknown {
        repository: pull.repository().clone(),
        digest,
    };
    content::serve(context, &found, Caching::Immutable, gone).await
}

/// Answers DELETE.
pub(super) async fn delete(
    context: &RequestContext<'_>,
    name: RepositoryName,
    digest: Digest,
) -> Reply {
    let delete = context.authorize(Delete(name)).await?;
    context.registry().delete_blob(&delete, digest).await?;
    Ok(reply::with_digest(StatusCode::ACCEPTED, digest).body(Body::empty())?)
}
