//! Conditional requests (RFC 9110 section 13). An entity tag is the digest in quotes.

use http::{HeaderMap, HeaderName, header};
use tonnage_engine::Digest;

use crate::registry::Precondition;

/// The entity tag of content.
pub(super) fn etag(digest: Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client of a GET or HEAD has the content already: 304.
pub(super) fn not_modified(headers: &HeaderMap, digest: Digest) -> bool {
    match tags(headers, &header::IF_NONE_MATCH) {
        Tags::None => false,
        Tags::Any => true,
        Tags::Some(digests) => digests.contains(&digest),
    }
}

/// Whether a Range counts: without If-Range, or where that is the content's tag.
pub(super) fn range_applies(headers: &HeaderMap, digest: Digest) -> bool {
    headers
        .get(header::IF_RANGE)
        .is_none_or(|value| value.as_bytes() == etag(digest).as_bytes())
}

/// What a PUT or DELETE demands. If-Match goes before If-None-Match, as in the RFC.
pub(super) fn precondition(headers: &HeaderMap) -> Precondition {
    match (
        tags(headers, &header::IF_MATCH),
        tags(headers, &header::IF_NONE_MATCH),
    ) {
        (Tags::Any, _) => Precondition::Exists,
        (Tags::Some(digests), _) => Precondition::IsOneOf(digests),
        (Tags::None, Tags::Any) => Precondition::Absent,
        (Tags::None, Tags::Some(digests)) => Precondition::IsNoneOf(digests),
        (Tags::None, Tags::None) => Precondition::None,
    }
}

enum Tags {
    None,
    Any,
    Some(Vec<Digest>),
}

/// A tag that is no digest of ours matches nothing, so it is left out.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Tags {
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return Tags::None;
    }
    let mut digests = Vec::new();
    for value in values {
        for item in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            if item == "*" {
                return Tags::Any;
            }
            let item = item.strip_prefix("W/").unwrap_or(item);
            let quoted = item
                .strip_prefix('"')
                .and_then(|item| item.strip_suffix('"'));
            digests.extend(quoted.and_then(|item| item.parse::<Digest>().ok()));
        }
    }
    Tags::Some(digests)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tonnage_engine::Algorithm;

    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    /// Guards: RFC 9110 sections 13.1.1, 13.1.2 and 13.1.5.
    #[test]
    fn entity_tags_are_digests() {
        let digest = Digest::of(Algorithm::Sha256, b"a");
        let tag = etag(digest);
        for (value, expected) in [
            (tag.as_str(), true),
            (&format!("\"x\", W/{tag}"), true),
            ("*", true),
            ("\"x\"", false),
            (&digest.to_string(), false),
        ] {
            assert_eq!(
                not_modified(&headers(header::IF_NONE_MATCH, value), digest),
                expected,
                "{value}"
            );
        }
        assert!(!not_modified(&HeaderMap::new(), digest));
        assert!(range_applies(&HeaderMap::new(), digest));
        assert!(range_applies(&headers(header::IF_RANGE, &tag), digest));
        assert!(!range_applies(&headers(header::IF_RANGE, "\"x\""), digest));
        let of = |name, value: &str| precondition(&headers(name, value));
        assert_eq!(of(header::IF_MATCH, "*"), Precondition::Exists);
        assert_eq!(
            of(header::IF_MATCH, &tag),
            Precondition::IsOneOf(vec![digest])
        );
        assert_eq!(of(header::IF_MATCH, "\"x\""), Precondition::IsOneOf(vec![]));
        assert_eq!(of(header::IF_NONE_MATCH, "*"), Precondition::Absent);
        assert_eq!(
            of(header::IF_NONE_MATCH, &tag),
            Precondition::IsNoneOf(vec![digest])
        );
    }
}
