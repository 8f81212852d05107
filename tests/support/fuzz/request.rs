//! Fuzz target for the head of a request: path, query, conditions, ranges, `ns`, ids.
//!
//! The input is text: `METHOD path?query`, then lines of `name: value`. Checked: a route's own path leads to the same
//! route, and an error has a small body.

use http::{HeaderName, HeaderValue, Method, Request, Uri};
use tonnage_engine::{Algorithm, Digest};
use tonnage_server::fuzz_entry;

/// The limit for error bodies. Clients read at most 64 KiB of one.
const REFUSAL_BYTES_MAX: u64 = 8 << 10;

/// Runs the target on one head.
pub fn run(bytes: &[u8]) {
    let Some(head) = head(bytes) else { return };
    let (parts, ()) = head.into_parts();
    let digest = Digest::of(Algorithm::Sha256, b"");
    let mirrored = ["docker.io".to_owned(), "quay.io:5000".to_owned()];
    let read = fuzz_entry::read_head(&parts, digest, &mirrored);
    assert!(
        read.refusal_bytes <= REFUSAL_BYTES_MAX,
        "an error body of {} bytes",
        read.refusal_bytes
    );
    assert!((1..=128).contains(&read.request_id.len()));
    if let Some(path) = read.path {
        let again = Request::get(path.as_str())
            .body(())
            .expect("the path of a route");
        let (again, ()) = again.into_parts();
        assert_eq!(fuzz_entry::read_head(&again, digest, &[]).path, Some(path));
    }
}

/// Returns the head that the HTTP library would pass on, or `None` where it would reject.
fn head(bytes: &[u8]) -> Option<Request<()>> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(2, |byte| *byte == b' ');
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(first.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(first.next()?).ok()?;
    for line in lines {
        let mut pair = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(pair.next()?).ok()?;
        let value = HeaderValue::from_bytes(pair.next()?.trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}
