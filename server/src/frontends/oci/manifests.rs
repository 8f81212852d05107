//! `/v2/<name>/manifests/<reference>`

use http::{HeaderMap, Method, StatusCode, header};

use super::content::{self, Caching};
use super::context::RequestContext;
use super::reply::{self, Reply};
use super::{conditional, headers, uploads, warning};
use crate::access::{Authorized, Delete, Overwrite, Pull, Push, Untag};
use crate::frontends::body::Body;
use crate::oci::{ManifestError, Reference, RepositoryName, Tag};
use crate::registry::{Error, ManifestPush};
use crate::transport::query;

/// Answers PUT and DELETE.
pub(super) async fn write(
    context: RequestContext<'_>,
    name: RepositoryName,
    reference: Reference,
) -> Reply {
    if context.head.method == Method::PUT {
        let push = context.authorize(Push(name)).await?;
        return put(context, &push, &reference).await;
    }
    delete(&context, name, &reference).await
}

/// Answers GET and HEAD.
pub(super) async fn get(
    context: &RequestContext<'_>,
    name: RepositoryName,
    reference: &Reference,
) -> Reply {
    let pull = context.authorize(Pull(name)).await?;
    let find = || context.registry().find_manifest(&pull, reference);
    let caching = match reference {
        Reference::Tag(_) => Caching::Revalidate,
        Reference::Digest(_) => Caching::Immutable,
    };
    let gone = || Error::ManifestUnknown {
        repository: pull.repository().clone(),
        reference: reference.to_string(),
    };
    content::serve(context, &pull, find, caching, gone).await
}

async fn put(context: RequestContext<'_>, push: &Authorized<Push>, reference: &Reference) -> Reply {
    let request = &context.head.headers;
    uploads::refuse_encoding(request)?;
    let tags = match reference {
        Reference::Digest(_) => query::all(context.head, "tag")
            .map(|tag| tag.parse::<Tag>().map_err(Error::TagInvalid))
            .collect::<Result<Vec<_>, _>>()?,
        // Only a push by digest takes them (distribution-spec, "Pushing Manifests"); a path with a tag has its own.
        Reference::Tag(_) => Vec::new(),
    };
    let max = context.registry().limits().manifest_bytes;
    // Held until the commit, because this memory also stands for what is parsed from the body.
    let received = context.state.manifests.receive(context.body, max).await?;
    let protected = protected(&context, push.repository(), reference, &tags).await;
    let pushed = ManifestPush {
        protected,
        reference,
        tags,
        content_type: content_type(request)?,
        bytes: received.bytes.clone(),
        precondition: conditional::precondition(request),
    };
    let done = context.registry().push_manifest(push, pushed).await?;
    let mut builder = reply::with_digest(StatusCode::CREATED, done.digest)
        .header(
            header::LOCATION,
            headers::manifest_location(push.repository(), done.digest),
        )
        .header(header::ETAG, conditional::etag(done.digest));
    if let Some(subject) = done.subject {
        builder = builder.header(headers::OCI_SUBJECT, subject.to_string());
    }
    if done.missing > 0 {
        let text = format!(
            "{} of the blobs and manifests that this manifest lists are not in {}; push them there before the whole manifest is pulled",
            done.missing,
            push.repository()
        );
        builder = warning::with(builder, [text.as_str()]);
    }
    for tag in &done.tags {
        builder = builder.header(headers::OCI_TAG, tag.as_str());
    }
    Ok(builder.body(Body::empty())?)
}

/// Returns the tags of a push that its sender may set, but not point at something else.
async fn protected(
    context: &RequestContext<'_>,
    repository: &RepositoryName,
    reference: &Reference,
    tags: &[Tag],
) -> Vec<Tag> {
    let own = match reference {
        Reference::Tag(tag) => Some(tag),
        Reference::Digest(_) => None,
    };
    let mut protected = Vec::new();
    for tag in own.into_iter().chain(tags) {
        let overwrite = Overwrite(repository.clone(), tag.clone());
        if !context.grants(&overwrite).await {
            protected.push(tag.clone());
        }
    }
    protected
}

/// Returns Content-Type as written, or `None` if it is missing or empty. Rejects several values and values that are
/// not text.
fn content_type(request: &HeaderMap) -> Result<Option<&str>, Error> {
    let mut values = request.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = values.next().filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text)),
        _ => Err(ManifestError::MediaType(format!("{value:?}")).into()),
    }
}

async fn delete(
    context: &RequestContext<'_>,
    name: RepositoryName,
    reference: &Reference,
) -> Reply {
    let delete = context.authorize(Delete(name)).await?;
    if let Reference::Tag(tag) = reference {
        // Some tags are deleted by nobody.
        let untag = Untag(delete.repository().clone(), tag.clone());
        context.authorize(untag).await?;
    }
    let precondition = conditional::precondition(&context.head.headers);
    context
        .registry()
        .delete_manifest(&delete, reference, &precondition)
        .await?;
    let mut builder = http::Response::builder().status(StatusCode::ACCEPTED);
    if let Reference::Digest(digest) = reference {
        builder = builder.header(headers::DOCKER_CONTENT_DIGEST, digest.to_string());
    }
    Ok(builder.body(Body::empty())?)
}
