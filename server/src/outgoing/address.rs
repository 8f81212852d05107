//! The address of another registry.
//!
//! Owns: [`RegistryAddress`], and the URLs of its content. Refuses: user names and passwords in it, because addresses
//! are logged.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, Scheme};
use serde::{Deserialize, Serialize};

use crate::registry::peer::{ContentKind, Wanted};

/// The address of a registry: `http://host:port` or `https://host`, with an optional path before the names of
/// repositories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistryAddress {
    scheme: Scheme,
    authority: Authority,
    /// Path before the names of repositories, without slashes at its ends.
    prefix: String,
}

/// Why a text is not the address of a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; write http://HOST:PORT or https://HOST, optionally with a path before the names of repositories"
)]
pub struct InvalidAddress(&'static str);

impl FromStr for RegistryAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let uri: Uri = text
            .parse()
            .map_err(|_invalid| InvalidAddress("not a URL"))?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.ok_or(InvalidAddress("no scheme"))?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(InvalidAddress("the scheme is neither http nor https"));
        }
        let authority = parts.authority.ok_or(InvalidAddress("no host"))?;
        if authority.as_str().contains('@') {
            let what = "the address has a user name; use --username and --password-stdin";
            return Err(InvalidAddress(what));
        }
        let path = parts.path_and_query;
        if path.as_ref().is_some_and(|path| path.query().is_some()) {
            return Err(InvalidAddress("the address has a query"));
        }
        let prefix = path.as_ref().map_or("", |path| path.path());
        Ok(Self {
            scheme,
            authority,
            prefix: prefix.trim_matches('/').to_owned(),
        })
    }
}

impl RegistryAddress {
    /// Returns whether it is reached by TLS.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Returns the name that a repository has there.
    pub(super) fn repository(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            return name.to_owned();
        }
        format!("{}/{name}", self.prefix)
    }

    /// Returns the URL of content. Names of repositories and digests need no escapes.
    pub(super) fn url(&self, wanted: &Wanted) -> Result<Uri, http::Error> {
        let kind = match wanted.kind {
            ContentKind::Blob => "blobs",
            ContentKind::Manifest => "manifests",
        };
        let repository = self.repository(&wanted.repository);
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("/v2/{repository}/{kind}/{}", wanted.digest))
            .build()
    }
}

impl fmt::Display for RegistryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

impl TryFrom<String> for RegistryAddress {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<RegistryAddress> for String {
    fn from(address: RegistryAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use tonnage_engine::{Algorithm, Digest};

    use super::*;

    /// Guards: addresses with and without a path before the repositories; no user names, queries or other schemes.
    #[test]
    fn addresses_are_parsed() {
        let wanted = Wanted {
            repository: "team/app".to_owned(),
            digest: Digest::of(Algorithm::Sha256, b""),
            kind: ContentKind::Manifest,
        };
        for (text, shown, path) in [
            ("http://h:5000", "http://h:5000", "/v2/team/app"),
            ("https://h/", "https://h", "/v2/team/app"),
            ("https://h/a/b/", "https://h/a/b", "/v2/a/b/team/app"),
            ("http://[::1]:5", "http://[::1]:5", "/v2/team/app"),
        ] {
            let address: RegistryAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            let url = address.url(&wanted).unwrap();
            assert_eq!(url.path(), format!("{path}/manifests/{}", wanted.digest));
        }
        for text in [
            "",
            "h:5000",
            "ftp://h",
            "https://u:p@h",
            "http://h/?a=b",
            "/a",
            "http://",
        ] {
            text.parse::<RegistryAddress>().unwrap_err();
        }
    }
}
