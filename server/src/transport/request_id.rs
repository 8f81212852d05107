//! One id per request, for log, error body and answer.
//!
//! Owns: keeping the client's id if it is well formed, and generating one otherwise. Ids distinguish requests; they are
//! not secret and prove nothing.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers;

/// The header of requests and answers.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const BYTES_MAX: usize = 128;
/// Digits of the largest number of a request.
const DIGITS_MAX: usize = 20;

/// The prefix of ids that this process generates.
static PREFIX: LazyLock<String> = LazyLock::new(|| {
    let random = RandomState::new().hash_one("request ids of this run");
    format!("{random:016x}-")
});
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The id of a request. It is cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id as text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Returns the value of [`X_REQUEST_ID`].
    pub(crate) fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Returns the id of a request with these headers.
pub(crate) fn of(headers: &HeaderMap) -> RequestId {
    let is_well_formed = |id: &&str| {
        (1..=BYTES_MAX).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
    };
    let given = headers::first(headers, &X_REQUEST_ID);
    let given = given.filter(|value| value.to_str().is_ok_and(|id| is_well_formed(&id)));
    // Copied, because it would keep the whole buffer that it was read into.
    let own = given.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
    RequestId(own.unwrap_or_else(generate))
}

fn generate() -> HeaderValue {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut id = BytesMut::with_capacity(PREFIX.len() + DIGITS_MAX);
    // There is room for it.
    write!(id, "{}{number}", *PREFIX).unwrap_or_default();
    HeaderValue::from_maybe_shared(id.freeze())
        .unwrap_or_else(|_invalid| HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Guards: a client's id is kept only if it is safe in a log and in a header.
    #[test]
    fn well_formed_ids_are_kept() {
        let with = |text: &str| {
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            let id = of(&HeaderMap::from_iter([(X_REQUEST_ID, value)]));
            id.as_str().to_owned()
        };
        assert_eq!(with("build-7_a.b"), "build-7_a.b");
        for bad in ["", "a b", "a\tb", "\u{e4}", "a\"b", &"x".repeat(129)] {
            assert_ne!(with(bad), bad, "{bad:?}");
        }
        let generated = [(); 2].map(|()| of(&HeaderMap::new()));
        assert_ne!(generated[0].as_str(), generated[1].as_str());
    }
}
