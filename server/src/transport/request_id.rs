//! One id per request, for log, error body and answer.
//!
//! Owns: keeping the client's id if it is well formed, and generating one otherwise. Ids distinguish requests; they are
//! not secret and prove nothing.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName};

/// The header of requests and answers.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const BYTES_MAX: usize = 128;

/// The prefix of ids that this process generates.
static PREFIX: LazyLock<String> = LazyLock::new(|| {
    let random = RandomState::new().hash_one("request ids of this run");
    format!("{random:016x}-")
});
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Returns the id of a request with these headers.
pub(crate) fn of(headers: &HeaderMap) -> String {
    let is_well_formed = |id: &&str| {
        (1..=BYTES_MAX).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
    };
    let given = headers
        .get(X_REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(is_well_formed);
    given.map_or_else(
        || {
            [
                &PREFIX,
                NEXT.fetch_add(1, Ordering::Relaxed).to_string().as_str(),
            ]
            .concat()
        },
        str::to_owned,
    )
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
            of(&HeaderMap::from_iter([(X_REQUEST_ID, value)]))
        };
        assert_eq!(with("build-7_a.b"), "build-7_a.b");
        for bad in ["", "a b", "a\tb", "\u{e4}", "a\"b", &"x".repeat(129)] {
            assert_ne!(with(bad), bad, "{bad:?}");
        }
        assert_ne!(of(&HeaderMap::new()), of(&HeaderMap::new()));
    }
}
