//! The form of `Location` headers (RFC 9110 section 10.2.2).
//!
//! Owns: [`Locations`]. Relative locations are correct behind any proxy; some clients accept only absolute ones.
//! Refuses: `X-Forwarded-*`, which any client may send.

use std::str::FromStr;

use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Uri, header};

use crate::transport::host::Authority;

/// The form of the locations of uploads, blobs and manifests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Locations {
    /// As paths.
    #[default]
    Relative,
    /// With `http://` and the host that the request names.
    Request,
    /// With this scheme and host, such as `https://registry.example`.
    Base(String),
}

/// The error that a text is not a form of locations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be relative, request, or a URL without a path, such as https://registry.example")]
pub struct InvalidLocations;

impl FromStr for Locations {
    type Err = InvalidLocations;

    fn from_str(text: &str) -> Result<Self, InvalidLocations> {
        match text {
            "relative" => return Ok(Self::Relative),
            "request" => return Ok(Self::Request),
            _ => {}
        }
        let uri: Uri = text.parse().map_err(|_unparsable| InvalidLocations)?;
        let web = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri
            .authority()
            .and_then(|host| Authority::parse(host.as_str()));
        match (uri.scheme_str(), host) {
            (Some(scheme), Some(host)) if web && uri.path() == "/" && uri.query().is_none() => {
                Ok(Self::Base(format!("{scheme}://{host}")))
            }
            _ => Err(InvalidLocations),
        }
    }
}

impl Locations {
    /// Rewrites the `Location` of an answer, if it has one. Without a host in the request, as HTTP/1.0 allows, it stays
    /// a path.
    pub(super) fn write(&self, headers: &mut HeaderMap, target: Option<&Authority>, is_tls: bool) {
        if *self == Self::Relative {
            return;
        }
        let Some(base) = self.base(target, is_tls) else {
            return;
        };
        let Some(path) = headers
            .get(header::LOCATION)
            .and_then(|path| path.to_str().ok())
        else {
            return;
        };
        if let Ok(location) = HeaderValue::try_from(format!("{base}{path}")) {
            headers.insert(header::LOCATION, location);
        }
    }

    /// Returns the address of the registry for the sender of a request: as configured, or as the request names it.
    pub(super) fn base(&self, target: Option<&Authority>, is_tls: bool) -> Option<String> {
        if let Self::Base(base) = self {
            return Some(base.clone());
        }
        let scheme = if is_tls { "https" } else { "http" };
        target.map(|target| format!("{scheme}://{target}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: which forms may be configured, and that a base has no final slash.
    #[test]
    fn bases_are_a_scheme_and_a_host() {
        let parse = |text: &str| text.parse::<Locations>();
        assert_eq!(parse("relative"), Ok(Locations::Relative));
        assert_eq!(parse("request"), Ok(Locations::Request));
        for text in [
            "https://registry.example:5000",
            "https://registry.example:5000/",
        ] {
            let base = Locations::Base("https://registry.example:5000".to_owned());
            assert_eq!(parse(text), Ok(base), "{text}");
        }
        for bad in [
            "",
            "absolute",
            "registry.example",
            "/v2",
            "ftp://registry.example",
            "https://registry.example/v2/",
            "https://registry.example/?a",
            "https://user@registry.example",
        ] {
            assert_eq!(parse(bad), Err(InvalidLocations), "{bad}");
        }
    }
}
