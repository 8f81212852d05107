//! `/v2/<name>/blobs/uploads/` and `/v2/<name>/blobs/uploads/<id>`
//!
//! Owns: the headers by which clients resume an upload: Location and Range, also on a 416.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, response};
use tonnage_engine::vocabulary::UploadId;

use super::context::RequestContext;
use super::error::Failure;
use super::headers;
use super::reply::{self, Reply};
use crate::access::{Authorized, Pull, Push};
use crate::frontends::body::Body;
use crate::oci::{Algorithm, ChunkRange, Digest, ParseDigestError, RepositoryName};
use crate::registry::Error;
use crate::transport::query;

/// Answers POST: begins an upload, receives a whole blob, or mounts one.
pub(super) async fn begin(context: RequestContext<'_>, name: RepositoryName) -> Reply {
    let push = context.authorize(Push(name)).await?;
    refuse_encoding(&context.head.headers)?;
    let announced = algorithm(&context)?;
    let mount = query::first(context.head, "mount").filter(|mount| !mount.is_empty());
    if let Some(mount) = mount {
        // A value that is not a digest cannot be mounted, so the blob is uploaded.
        let Ok(digest) = mount.parse::<Digest>() else {
            return open_upload(&context, &push, announced).await;
        };
        if mount_blob(&context, &push, digest).await? {
            return created(push.repository(), digest);
        }
        return open_upload(&context, &push, announced.or(Some(digest.algorithm()))).await;
    }
    if let Some(digest) = digest(&context) {
        let digest: Digest = digest.parse().map_err(Error::DigestInvalid)?;
        // Without content, the request asks whether the repository has the blob, or begins an upload.
        let empty = Digest::of(digest.algorithm(), b"");
        if context.body.length() == Some(0) && digest != empty {
            if has_blob(&context, &push, digest).await? {
                return created(push.repository(), digest);
            }
            return open_upload(&context, &push, announced.or(Some(digest.algorithm()))).await;
        }
        context
            .state
            .registry
            .push_blob(&push, digest, context.body)
            .await?;
        return created(push.repository(), digest);
    }
    open_upload(&context, &push, announced).await
}

/// Answers the methods of one upload.
pub(super) async fn handle(
    context: RequestContext<'_>,
    name: RepositoryName,
    id: UploadId,
) -> Reply {
    let push = context.authorize(Push(name)).await?;
    let registry = &context.state.registry;
    match context.head.method {
        Method::PATCH => {
            let chunk = chunk(&context.head.headers)?;
            // The specification defines no digest for a chunk; if there is one, it is the one of the closing request.
            let digest = query::first(context.head, "digest");
            let digest: Option<Digest> = digest.and_then(|digest| digest.parse().ok());
            let algorithm = digest.map(|digest| digest.algorithm());
            let outcome = registry
                .append_to_upload(&push, id, chunk, algorithm, context.body)
                .await;
            match outcome {
                Ok(offset) => {
                    let builder =
                        resume_headers(StatusCode::ACCEPTED, push.repository(), id, offset);
                    Ok(builder
                        .header(header::CONTENT_LENGTH, 0)
                        .body(Body::empty())?)
                }
                Err(error) => Err(with_resume_headers(&context, &push, id, false, error).await),
            }
        }
        Method::PUT => {
            let chunk = chunk(&context.head.headers)?;
            let digest = digest(&context).ok_or(Error::DigestMissing)?;
            let digest: Digest = digest.parse().map_err(Error::DigestInvalid)?;
            match registry
                .close_upload(&push, id, digest, chunk, context.body)
                .await
            {
                Ok(()) => created(push.repository(), digest),
                Err(error) => {
                    Err(with_resume_headers(&context, &push, id, chunk.is_none(), error).await)
                }
            }
        }
        Method::DELETE => {
            registry.cancel_upload(&push, id).await?;
            Ok(Response::builder()
                .status(StatusCode::NO_CONTENT)
                .body(Body::empty())?)
        }
        _ => {
            let offset = registry.upload_offset(&push, id).await?;
            let builder = resume_headers(StatusCode::NO_CONTENT, push.repository(), id, offset);
            Ok(builder.body(Body::empty())?)
        }
    }
}

/// Rejects compressed bodies, because digests are those of the stored bytes.
pub(super) fn refuse_encoding(headers: &HeaderMap) -> Result<(), Error> {
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get(header::CONTENT_ENCODING) {
        Some(value) if !plain(value) => Err(Error::ContentEncoding),
        _ => Ok(()),
    }
}

pub(super) fn chunk(headers: &HeaderMap) -> Result<Option<ChunkRange>, Error> {
    refuse_encoding(headers)?;
    let value = headers.get(header::CONTENT_RANGE);
    value
        .map(|value| {
            value
                .to_str()
                .unwrap_or_default()
                .parse()
                .map_err(Error::ChunkRangeInvalid)
        })
        .transpose()
}

/// Returns the parameter `digest`, unless it is empty.
fn digest<'a>(context: &'a RequestContext<'_>) -> Option<Cow<'a, str>> {
    query::first(context.head, "digest").filter(|digest| !digest.is_empty())
}

fn algorithm(context: &RequestContext<'_>) -> Result<Option<Algorithm>, Error> {
    let name = query::first(context.head, "digest-algorithm");
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let unknown = || ParseDigestError::UnknownAlgorithm(name.chars().take(32).collect());
    Ok(Some(Algorithm::from_name(&name).ok_or_else(unknown)?))
}

async fn mount_blob(
    context: &RequestContext<'_>,
    push: &Authorized<Push>,
    digest: Digest,
) -> Result<bool, Error> {
    let from = query::first(context.head, "from").filter(|from| !from.is_empty());
    let source = match from {
        None => None,
        // A source that is not a name, or may not be read, is not an error: the blob is uploaded instead.
        Some(from) => {
            let Ok(name) = from.parse() else {
                return Ok(false);
            };
            let Ok(source) = context.authorize(Pull(name)).await else {
                return Ok(false);
            };
            Some(source)
        }
    };
    context
        .registry()
        .mount_blob(push, digest, source.as_ref(), &context.state.gate)
        .await
}

/// Returns whether the repository itself has the blob.
async fn has_blob(
    context: &RequestContext<'_>,
    push: &Authorized<Push>,
    digest: Digest,
) -> Result<bool, Error> {
    let Ok(own) = context.authorize(Pull(push.repository().clone())).await else {
        return Ok(false);
    };
    context
        .registry()
        .mount_blob(push, digest, Some(&own), &context.state.gate)
        .await
}

async fn open_upload(
    context: &RequestContext<'_>,
    push: &Authorized<Push>,
    algorithm: Option<Algorithm>,
) -> Reply {
    // A plain POST has no content, so its length is not the blob's.
    let id = context
        .registry()
        .begin_upload(push, algorithm, None)
        .await?;
    let mut builder = resume_headers(StatusCode::ACCEPTED, push.repository(), id, 0);
    // Advice only (distribution-spec, "Pushing a blob in chunks": a client SHOULD). A chunk is not known to be the
    // last, which may be shorter, before the upload is closed, and clients that send no Content-Range never read this
    // header.
    if context.state.chunk_min_bytes > 0 {
        builder = builder.header(headers::OCI_CHUNK_MIN_LENGTH, context.state.chunk_min_bytes);
    }
    Ok(builder
        .header(header::CONTENT_LENGTH, 0)
        .body(Body::empty())?)
}

fn created(name: &RepositoryName, digest: Digest) -> Reply {
    let builder = reply::with_digest(StatusCode::CREATED, digest)
        .header(header::LOCATION, headers::blob_location(name, digest))
        .header(header::CONTENT_LENGTH, 0);
    Ok(builder.body(Body::empty())?)
}

fn resume_headers(
    status: StatusCode,
    name: &RepositoryName,
    id: UploadId,
    offset: u64,
) -> response::Builder {
    Response::builder()
        .status(status)
        .header(header::LOCATION, headers::upload_location(name, id))
        .header(header::RANGE, headers::upload_range(offset))
        .header(headers::DOCKER_UPLOAD_UUID, id.to_string())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only these leave an upload that can be resumed"
)]
/// Adds Location and Range to an error that does not end the upload, so that clients can resume. A Range states the
/// offset. So it is left out where the client does not resume: another request writes, or the client sends the same
/// close again, which discards what this one sent.
async fn with_resume_headers(
    context: &RequestContext<'_>,
    push: &Authorized<Push>,
    id: UploadId,
    is_whole_close: bool,
    error: Error,
) -> Failure {
    let error = match error {
        Error::BodyTimeout => Error::UploadTimeout,
        error => error,
    };
    let offset = match &error {
        Error::OutOfOrder { offset, .. } => Some(*offset),
        Error::UploadBusy => None,
        Error::NotAttempted { .. } if is_whole_close => None,
        Error::ChunkLength { .. } | Error::DigestMismatch { .. } | Error::NotAttempted { .. } => {
            match context.registry().upload_offset(push, id).await {
                Ok(offset) => Some(offset),
                Err(_) => return error.into(),
            }
        }
        _ => return error.into(),
    };
    let mut failure = Failure::from(error);
    let location = HeaderValue::try_from(headers::upload_location(push.repository(), id));
    if let Ok(location) = location {
        failure = failure.with(header::LOCATION, location);
    }
    if let Some(offset) = offset
        && let Ok(range) = HeaderValue::try_from(headers::upload_range(offset))
    {
        failure = failure.with(header::RANGE, range);
    }
    failure
}
