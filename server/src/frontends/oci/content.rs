//! Serving stored bytes: whole, one range, or several.
//!
//! Owns: the headers of content and the choice among 200, 206, 304 and 416 (RFC 9110 section 14).
//! Refuses: content negotiation; what is stored is served, whatever Accept says.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response};

use super::conditional;
use super::context::RequestContext;
use super::error::Failure;
use super::reply::{self, Reply};
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
    /// Named by digest: forever.
    Immutable,
    /// Named by tag: not without asking again.
    Revalidate,
}

/// Answers GET and HEAD for something found; `gone` is the error if its bytes are no longer there.
pub(super) async fn serve(
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
        return Ok(content_headers(StatusCode::NOT_MODIFIED, found, caching).body(Body::empty())?);
    }
    let (kind, media_type) = match &found.media_type {
        Some(media_type) if is_inert(media_type) => (Pulled::Manifest, media_type.as_str()),
        Some(_) => (Pulled::Manifest, OCTETS),
        None => (Pulled::Blob, OCTETS),
    };
    if context.is_head() {
        if context.registry().is_damaged(found).await? {
            return Err(gone().into());
        }
        return answer_head(found, caching, media_type);
    }
    let blob = context.registry().open(found, context.client_id()).await?;
    let blob = blob.ok_or_else(gone)?;
    let reads = |length: u64| {
        let urgent = kind == Pulled::Manifest || length <= SMALL_BYTES;
        context.account().map(|account| account.answer(urgent))
    };
    let range = single_value(request, &header::RANGE)
        .filter(|_| conditional::range_applies(request, found.digest));
    let answer = range.map_or(RangeAnswer::Whole, |range| {
        RangeAnswer::of(range, blob.length())
    });
    match answer {
        RangeAnswer::Whole => {
            let length = blob.length();
            let builder = content_headers(StatusCode::OK, found, caching)
                .header(header::CONTENT_TYPE, media_type);
            let windows = blob.read(0..length, reads(length).as_ref());
            send(context, builder, length, windows, kind).await
        }
        RangeAnswer::One(range) => {
            let builder = content_headers(StatusCode::PARTIAL_CONTENT, found, caching)
                .header(header::CONTENT_TYPE, media_type)
                .header(header::CONTENT_RANGE, content_range(&range, blob.length()));
            let length = range.end - range.start;
            let windows = blob.read(range, reads(length).as_ref());
            send(context, builder, length, windows, kind).await
        }
        RangeAnswer::Several(ranges) => {
            let boundary = boundary();
            let reads = reads(u64::MAX);
            let (length, windows) = multipart(blob, &ranges, media_type, &boundary, reads);
            let builder = content_headers(StatusCode::PARTIAL_CONTENT, found, caching).header(
                header::CONTENT_TYPE,
                format!("multipart/byteranges; boundary={boundary}"),
            );
            send(context, builder, length, windows, kind).await
        }
        RangeAnswer::Unsatisfiable => {
            let all = HeaderValue::try_from(format!("bytes */{}", blob.length()));
            let all = all.map_err(Error::internal)?;
            let failure = Failure::from(Error::RangeUnsatisfiable {
                length: blob.length(),
            });
            Err(failure.with(header::CONTENT_RANGE, all))
        }
        RangeAnswer::Excessive => Err(Error::RangesExcessive.into()),
    }
}

/// The answer to a HEAD.
fn answer_head(found: &Found, caching: Caching, media_type: &str) -> Reply {
    let builder =
        content_headers(StatusCode::OK, found, caching).header(header::CONTENT_TYPE, media_type);
    Ok(builder
        .header(header::CONTENT_LENGTH, found.length)
        .body(Body::empty())?)
}

/// The text of a header that occurs once. Range is not a list, so two of them have no defined meaning.
pub(super) fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn content_headers(status: StatusCode, found: &Found, caching: Caching) -> response::Builder {
    let cache = match caching {
        Caching::Immutable => "private, max-age=31536000, immutable",
        Caching::Revalidate => "no-cache",
    };
    reply::with_digest(status, found.digest)
        .header(header::ETAG, conditional::etag(found.digest))
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, cache)
}

async fn send(
    context: &RequestContext<'_>,
    builder: response::Builder,
    length: u64,
    windows: Windows,
    kind: Pulled,
) -> Reply {
    let body = Body::windows(length, windows, &context.state.metrics, kind).await?;
    Ok(builder.header(header::CONTENT_LENGTH, length).body(body)?)
}

fn content_range(range: &Range<u64>, length: u64) -> String {
    format!(
        "bytes {}-{}/{length}",
        range.start,
        range.end.saturating_sub(1)
    )
}

/// The separator of the parts: random, so that no content can be made to contain it.
fn boundary() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The parts in the order of the request; each is read when the one before was sent.
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
