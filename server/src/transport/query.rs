//! The query of a request.
//!
//! Owns: finding parameters by name. Unknown ones (`origin`) are ignored, because clients send them.

use std::borrow::Cow;

use http::request::Parts;

/// Returns the first value of a parameter.
pub(crate) fn first<'a>(head: &'a Parts, name: &str) -> Option<Cow<'a, str>> {
    all(head, name).next()
}

/// Returns all values of a parameter.
pub(crate) fn all<'a>(head: &'a Parts, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
    let query = head.uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .filter_map(move |(key, value)| (key == name).then_some(value))
}

/// Encodes `pairs` as a query.
pub(crate) fn encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}
