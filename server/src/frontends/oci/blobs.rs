//! `/v2/<name>/blobs/<digest>`

use http::StatusCode;

use super::content::{self, Caching};
use super::context::RequestContext;
use super::reply::{self, Reply};
use crate::access::{Delete, Pull};
use crate::frontends::body::Body;
use crate::oci::{Digest, RepositoryName};
use crate::registry::Error;

/// Answers GET and HEAD.
pub(super) async fn get(
    context: &RequestContext<'_>,
    name: RepositoryName,
    digest: Digest,
) -> Reply {
    let pull = context.authorize(Pull(name)).await?;
    let find = || context.registry().find_blob(&pull, digest);
    let gone = || Error::BlobUnknown {
        repository: pull.repository().clone(),
        digest,
    };
    content::serve(context, &pull, find, Caching::Immutable, gone).await
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
