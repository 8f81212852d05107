//! Serves stored bytes: whole, one range, or several.
//!
//! Owns: the headers of content and the choice among 200, 206, 304 and 416 (RFC 9110 section 14).
//! Refuses: content negotiation; what is stored is served, whatever Accept says.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::conditional;
use super::context::RequestContext;
use super::error::Failure;
use super::headers::DOCKER_CONTENT_DIGEST;
use super::repeat::{self, Repeated};
use super::reply::{CONTENT_HEADERS, Reply};
use crate::access::{Authorized, Pull};
use crate::frontends::body::Body;
use crate::oci::{RangeAnswer, media_type::is_inert};
use crate::registry::ports::{AnswerReads, Blob, Windows};
use crate::registry::{Error, Found};
use crate::telemetry::Pulled;

const OCTETS: &str = "application/octet-stream";
/// Answers up to this length, and manifests, may use the reserve of the memory for reads.
const SMALL_BYTES: u64 = 64 << 10;

/// How long caches may keep an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caching {
    /// Content named by digest: without limit.
    Immutable,
    /// Content named by tag: caches must revalidate it.
    Revalidate,
}

/// Answers GET and HEAD for the content that `find` finds in the repository of `pull`. `gone` returns the error if its
/// bytes no longer exist.
pub(super) async fn serve<Find: Future<Output = Result<Found, Error>>>(
    context: &RequestContext<'_>,
    pull: &Authorized<Pull>,
    find: impl FnOnce() -> Find,
    caching: Caching,
    gone: impl FnOnce() -> Error,
) -> Reply {
    let revision = repeat::revision(context.state, context.head);
    // There is one if the sender, permission or damage of the request had to be waited for.
    if let Some(revision) = revision
        && let Some(repeated) = Repeated::find(context.state, context.head, revision)
        && !context.registry().is_damaged(repeated.digest()).await?
    {
        return Ok(repeated.response(context.state, context.head, context.client));
    }
    let found = find().await?;
    let answer = serve_found(context, &found, caching, gone).await?;
    Ok(match revision {
        Some(revision) => repeat::keep(context, revision, pull.repository(), &found, answer).await,
        None => answer,
    })
}

/// Answers GET and HEAD for content that was found.
async fn serve_found(
    context: &RequestContext<'_>,
    found: &Found,
    caching: Caching,
    gone: impl FnOnce() -> Error,
) -> Reply {
    let request = &context.head.headers;
    if conditional::if_match_fails(request, found.digest) {
        return Err(Error::PreconditionFailed.into());
    }
    if conditional::not_modified(request, found.digest) {
        return answer(StatusCode::NOT_MODIFIED, found, caching, Body::empty());
    }
    if context.is_head() {
        if context.registry().is_damaged(found.digest).await? {
            return Err(gone().into());
        }
        let response = answer(StatusCode::OK, found, caching, Body::empty())?;
        return with_content(response, media_type(found), found.length);
    }
    let blob = context.registry().open(found, context.client_id()).await?;
    let blob = blob.ok_or_else(gone)?;
    let range = single_value(request, &header::RANGE)
        .filter(|_| conditional::range_applies(request, found.digest));
    let ranges = range.map_or(RangeAnswer::Whole, |range| {
        RangeAnswer::of(range, blob.length())
    });
    serve_range(context, found, caching, blob, ranges).await
}

/// Answers a GET with `ranges` of `blob`, or all of it.
async fn serve_range(
    context: &RequestContext<'_>,
    found: &Found,
    caching: Caching,
    blob: Box<dyn Blob>,
    ranges: RangeAnswer,
) -> Reply {
    let kind = match &found.media_type {
        Some(_) => Pulled::Manifest,
        None => Pulled::Blob,
    };
    let reads = |length: u64| {
        let urgent = kind == Pulled::Manifest || length <= SMALL_BYTES;
        context.account().map(|account| account.answer(urgent))
    };
    let (media_type, total) = (media_type(found), blob.length());
    match ranges {
        RangeAnswer::Whole => {
            let windows = blob.read(0..total, reads(total).as_ref());
            let body = Body::windows(total, windows, &context.state.metrics, kind).await?;
            let response = answer(StatusCode::OK, found, caching, body)?;
            with_content(response, media_type, total)
        }
        RangeAnswer::One(range) => {
            let length = range.end - range.start;
            let described = HeaderValue::try_from(content_range(&range, total))?;
            let windows = blob.read(range, reads(length).as_ref());
            let body = Body::windows(length, windows, &context.state.metrics, kind).await?;
            let mut response = answer(StatusCode::PARTIAL_CONTENT, found, caching, body)?;
            let fields = response.headers_mut();
            fields.insert(header::CONTENT_RANGE, described);
            with_content(response, media_type, length)
        }
        RangeAnswer::Several(ranges) => {
            let boundary = boundary();
            let reads = reads(u64::MAX);
            let (length, windows) = multipart(blob, &ranges, media_type, &boundary, reads);
            let body = Body::windows(length, windows, &context.state.metrics, kind).await?;
            let response = answer(StatusCode::PARTIAL_CONTENT, found, caching, body)?;
            let media_type = format!("multipart/byteranges; boundary={boundary}");
            with_content(response, &media_type, length)
        }
        RangeAnswer::Unsatisfiable => {
            let all = HeaderValue::try_from(format!("bytes */{total}"))?;
            let failure = Failure::from(Error::RangeUnsatisfiable { length: total });
            Err(failure.with(header::CONTENT_RANGE, all))
        }
        RangeAnswer::Excessive => Err(Error::RangesExcessive.into()),
    }
}

/// Returns the type to send: the stored one, unless a browser renders it.
fn media_type(found: &Found) -> &str {
    let stored = found.media_type.as_deref();
    stored.filter(|stored| is_inert(stored)).unwrap_or(OCTETS)
}

/// Returns the text of a header that occurs once. Range is not a list, so two of them have no defined meaning.
pub(super) fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Builds an answer with the headers that content has whichever part of it is sent.
fn answer(status: StatusCode, found: &Found, caching: Caching, body: Body) -> Reply {
    let cache = match caching {
        Caching::Immutable => "private, max-age=31536000, immutable",
        Caching::Revalidate => "no-cache",
    };
    // The digest is formatted once: its header is the part between the quotes of the entity tag.
    let etag = Bytes::from(conditional::etag(found.digest));
    let digest = etag.slice(1..etag.len() - 1);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.reserve(CONTENT_HEADERS);
    fields.insert(
        DOCKER_CONTENT_DIGEST,
        HeaderValue::from_maybe_shared(digest)?,
    );
    fields.insert(header::ETAG, HeaderValue::from_maybe_shared(etag)?);
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    Ok(response)
}

/// Adds the type and length of the body to an answer.
fn with_content(mut response: Response<Body>, media_type: &str, length: u64) -> Reply {
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::try_from(media_type)?);
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

fn content_range(range: &Range<u64>, length: u64) -> String {
    format!(
        "bytes {}-{}/{length}",
        range.start,
        range.end.saturating_sub(1)
    )
}

/// Returns a random separator of the parts, so that no content can be made to contain it.
fn boundary() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Builds the parts in the order of the request. Each is read after the previous one was sent.
fn multipart(
    blob: Box<dyn Blob>,
    ranges: &[Range<u64>],
    media_type: &str,
    boundary: &str,
    reads: Option<AnswerReads>,
) -> (u64, Windows) {
    let total = blob.length();
    let parts: Vec<(Bytes, Range<u64>)> = ranges
        .iter()
        .map(|range| {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {}\r\n\r\n",
                content_range(range, total)
            );
            (Bytes::from(head), range.clone())
        })
        .collect();
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let bytes = |bytes: &Bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let length = parts.iter().fold(bytes(&end), |sum, (head, range)| {
        sum + bytes(head) + (range.end - range.start)
    });
    let windows = stream::iter(parts)
        .flat_map(move |(head, range)| literal(head).chain(blob.read(range, reads.as_ref())))
        .chain(literal(end));
    (length, windows.boxed())
}

fn literal(bytes: Bytes) -> Windows {
    stream::once(async move { Ok(bytes) }).boxed()
}
