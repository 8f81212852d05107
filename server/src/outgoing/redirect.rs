//! Where a request may go.
//!
//! Owns: the targets of redirects, and origins. Pure.

use crate::reason::shorten;
use http::Uri;
use http::uri::Scheme;

/// Most redirects of one request.
pub(super) const REDIRECTS_MAX: usize = 5;

/// Returns whether two URLs have the same scheme, host and port, so that the credentials of one are those of the other.
pub(super) fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && is_same_host(one, other) && port(one) == port(other)
}

/// Returns whether two URLs have the same host.
pub(super) fn is_same_host(one: &Uri, other: &Uri) -> bool {
    match (one.host(), other.host()) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        _ => false,
    }
}

/// Returns whether a URL is reached by TLS.
pub(super) fn is_https(url: &Uri) -> bool {
    url.scheme() == Some(&Scheme::HTTPS)
}

fn port(url: &Uri) -> Option<u16> {
    let default = if is_https(url) { 443 } else { 80 };
    url.port_u16().or(Some(default))
}

/// Returns the URL that `location` means in an answer from `from`.
///
/// # Errors
/// What it leads to, if a request may not follow: no URL, another scheme, a user name, or from https to http, which
/// would show the content to everyone on the way.
pub(super) fn target(from: &Uri, location: &str) -> Result<Uri, String> {
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let text = if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let folder = from
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let url: Uri = text
        .parse()
        .map_err(|_invalid| "something that is not a URL".to_owned())?;
    let host = url.host().unwrap_or_default();
    if host.is_empty()
        || url
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("a URL without a host, or with a user name".to_owned());
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if !is_https(from) => Ok(url),
        Some("http") => Err(format!("{} without TLS", shorten(host))),
        _ => Err("a scheme that is neither http nor https".to_owned()),
    }
}

/// Returns whether a reference begins with a scheme (RFC 3986 section 4.1).
fn has_scheme(location: &str) -> bool {
    let end = location.find([':', '/', '?', '#']);
    end.is_some_and(|end| end > 0 && location[end..].starts_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: references of every form are resolved; a request never leaves http and https, nor TLS.
    #[test]
    fn redirects_are_resolved() {
        let http: Uri = "http://h:5000/v2/a/blobs/d?x=y".parse().unwrap();
        let https: Uri = "https://h/v2/a/blobs/d".parse().unwrap();
        for (location, url) in [
            ("https://cdn/x?sig=a", "https://cdn/x?sig=a"),
            ("//cdn:1/x", "http://cdn:1/x"),
            ("/x", "http://h:5000/x"),
            ("x/y", "http://h:5000/v2/a/blobs/x/y"),
            ("?z", "http://h:5000/v2/a/blobs/d?z"),
        ] {
            assert_eq!(target(&http, location).unwrap(), url, "{location}");
        }
        for location in [
            "file:///etc/passwd",
            "gopher://h/",
            "http://u@h/",
            "http://h/ x",
            "https:///x",
        ] {
            target(&http, location).unwrap_err();
        }
        target(&https, "http://h/v2/a/blobs/d").unwrap_err();
    }

    /// Guards: an origin has scheme, host and port, with the default ports; the case of a host does not matter.
    #[test]
    fn origins_are_compared() {
        let same =
            |one: &str, other: &str| is_same_origin(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(same("https://H/a", "https://h:443/b"));
        assert!(same("http://h:80", "http://h/"));
        assert!(!same("http://h", "https://h"));
        assert!(!same("http://h:1", "http://h:2"));
        assert!(!same("http://h", "http://h.evil"));
    }
}
