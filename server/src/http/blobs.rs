//! `/v2/<name>/blobs/<digest>`

use http::{Method, StatusCode};

use super::body::Body;
use super::content::{self, Freshness};
use super::{Exchange, Reply, headers};
use crate::access::{Delete, Pull};
use crate::oci::{Digest, RepositoryName};
use crate::registry::Error;

pub(super) async fn handle(exchange: &Exchange<'_>, name: RepositoryName, digest: Digest) -> Reply {
    if exchange.head.method == Method::DELETE {
        let delete = exchange.authorize(Delete(name))?;
        exchange.registry().delete_blob(&delete, digest).await?;
        return Ok(headers::with_digest(StatusCode::ACCEPTED, digest).body(Body::empty())?);
    }
    let pull = exchange.authorize(Pull(name))?;
    let found = exchange.registry().find_blob(&pull, digest).await?;
    let gone = || Error::BlobUnknown {
        repository: pull.repository().clone(),
        digest,
    };
    content::serve(exchange, &found, Freshness::Immutable, gone).await
}
