//! Headers that all front ends share.
//!
//! Owns: parsing lists, headers that protect browsers, and removing bodies that an answer must not have.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body;

/// Returns the elements of a list header, over all its lines (RFC 9110 section 5.6.1).
pub(crate) fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter();
    let elements = lines.flat_map(|line| line.to_str().unwrap_or_default().split(','));
    elements.map(str::trim)
}

/// Returns the first value of a field. For the few fields that a head has, comparing their names is cheaper than
/// hashing one.
pub(crate) fn first<'a>(headers: &'a HeaderMap, wanted: &HeaderName) -> Option<&'a HeaderValue> {
    let mut fields = headers.iter();
    fields.find_map(|(name, value)| (name == wanted).then_some(value))
}

/// Adds headers that forbid browsers to execute an answer, because any client may have pushed its content.
pub(crate) fn set_browser_protection(headers: &mut HeaderMap) {
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    let nothing = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
}

/// Removes the body if the method or the status allows none (RFC 9110 sections 9.3.2 and 6.4.1). hyper does so only for
/// HTTP/1.1; over HTTP/2 such a body is a protocol error.
pub(crate) fn strip_body<B: Body>(response: &mut Response<B>, method: &Method, empty: B) {
    let status = response.status();
    let never = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if never {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    } else if *method == Method::HEAD {
        let length = response.body().size_hint().exact().unwrap_or(0);
        let headers = response.headers_mut();
        headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    } else {
        return;
    }
    *response.body_mut() = empty;
}
