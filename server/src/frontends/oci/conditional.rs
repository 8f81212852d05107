//! Conditional requests (RFC 9110 section 13). An entity tag is the digest in quotes.
//!
//! Owns: parsing the condition of a request, and comparing served content with it.
//! Refuses: checking the condition of a PUT or DELETE, which the commit does.
//!
//! The registry's tags are strong. A client may hold one in its weak form (`W/`, as proxies that compress make it).
//! That is enough to know that it has the content, but not to change something (If-Match) or to combine parts
//! (If-Range).

use http::{HeaderMap, HeaderName, header};
use tonnage_engine::Digest;

use crate::registry::Precondition;

/// Length of the longest entity tag, of a SHA-512 digest.
const ETAG_BYTES_MAX: usize = 2 + 7 + 128;

/// Returns the entity tag of content.
pub(super) fn etag(digest: Digest) -> String {
    let mut tag = String::with_capacity(ETAG_BYTES_MAX);
    tag.push('"');
    digest.push_to(&mut tag);
    tag.push('"');
    tag
}

/// Returns whether the client of a GET or HEAD already has the content, which is answered 304.
pub(super) fn not_modified(headers: &HeaderMap, digest: Digest) -> bool {
    match tags(headers, &header::IF_NONE_MATCH, Comparison::Weak) {
        Tags::None => false,
        Tags::Any => true,
        Tags::Some(digests) => digests.contains(&digest),
    }
}

/// Returns whether a GET or HEAD requests other content than what is stored, which is answered 412. Clients send this
/// condition to resume a pull by tag.
pub(super) fn if_match_fails(headers: &HeaderMap, digest: Digest) -> bool {
    match tags(headers, &header::IF_MATCH, Comparison::Strong) {
        Tags::None | Tags::Any => false,
        Tags::Some(digests) => !digests.contains(&digest),
    }
}

/// Returns whether a Range applies: without If-Range, or if that is the content's tag.
pub(super) fn range_applies(headers: &HeaderMap, digest: Digest) -> bool {
    headers
        .get(header::IF_RANGE)
        .is_none_or(|value| value.as_bytes() == etag(digest).as_bytes())
}

/// Returns the precondition of a PUT or DELETE. If-Match takes precedence over If-None-Match, as in the RFC.
pub(super) fn precondition(headers: &HeaderMap) -> Precondition {
    match (
        tags(headers, &header::IF_MATCH, Comparison::Strong),
        tags(headers, &header::IF_NONE_MATCH, Comparison::Weak),
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

/// How two entity tags are compared (RFC 9110 section 8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag matches nothing.
    Strong,
    /// Weak and strong tags match.
    Weak,
}

/// Returns the digests of a condition. A tag that is not a digest matches nothing, so it is left out.
fn tags(headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> Tags {
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return Tags::None;
    }
    let mut digests = Vec::new();
    for value in values {
        let value = value.to_str().unwrap_or_default();
        // It is the wildcard only if it is alone; in a list it may be part of an opaque tag.
        if value.trim() == "*" {
            return Tags::Any;
        }
        for item in value.split(',').map(str::trim) {
            let item = match (item.strip_prefix("W/"), comparison) {
                (Some(_), Comparison::Strong) => continue,
                (Some(weak), Comparison::Weak) => weak,
                (None, _) => item,
            };
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

    /// Guards: RFC 9110 section 8.8.3.2: If-Match and If-Range compare strongly, If-None-Match weakly; an asterisk is
    /// the wildcard only where it is the whole field.
    #[test]
    fn weak_tags_change_nothing() {
        let digest = Digest::of(Algorithm::Sha256, b"a");
        let weak = format!("W/{}", etag(digest));
        let of = |name, value: &str| precondition(&headers(name, value));
        assert_eq!(of(header::IF_MATCH, &weak), Precondition::IsOneOf(vec![]));
        assert!(if_match_fails(&headers(header::IF_MATCH, &weak), digest));
        assert!(!range_applies(&headers(header::IF_RANGE, &weak), digest));
        assert_eq!(
            of(header::IF_NONE_MATCH, &weak),
            Precondition::IsNoneOf(vec![digest])
        );
        assert!(not_modified(&headers(header::IF_NONE_MATCH, &weak), digest));
        let odd = "\"a,*,b\"";
        assert_eq!(of(header::IF_MATCH, odd), Precondition::IsOneOf(vec![]));
        assert_eq!(of(header::IF_MATCH, " * "), Precondition::Exists);
        for (value, expected) in [
            (etag(digest).as_str(), false),
            ("\"x\"", true),
            ("*", false),
        ] {
            assert_eq!(
                if_match_fails(&headers(header::IF_MATCH, value), digest),
                expected,
                "{value}"
            );
        }
        assert!(!if_match_fails(&HeaderMap::new(), digest));
    }
}
