//! Small documents of other servers that the operator named, such as the keys with which tokens are verified.
//!
//! Owns: [`Documents`]: one GET, bounded in time and size. Refuses: redirects, credentials, and plain HTTP but to
//! loopback, because whoever can change such a document can be anyone.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::reason::describe;
use crate::tls::{self, TlsError, https_connector};

/// Largest document.
const BYTES_MAX: usize = 1 << 20;
/// Time to connect, and for the whole document.
const TIME_MAX: Duration = Duration::from_secs(5);
const AGENT: &str = concat!("tonnage/", env!("CARGO_PKG_VERSION"));

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// The server could not be reached, or its answer broke off.
    #[error("{0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("no answer in {} s", TIME_MAX.as_secs())]
    Late,
    /// The answer has another status than 200.
    #[error("the answer has the status {0}")]
    Status(u16),
    /// The document is too large.
    #[error("the answer has more than {BYTES_MAX} bytes")]
    TooLarge,
}

/// Fetches documents.
#[derive(Debug)]
pub(crate) struct Documents {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// Returns whether documents may be fetched from a URL.
pub(crate) fn is_trustworthy(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let is_loopback = host
        .trim_matches(['[', ']'])
        .parse::<std::net::IpAddr>()
        .map_or(host == "localhost", |address| address.is_loopback());
    let has_user = url
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    !host.is_empty()
        && !has_user
        && (url.scheme() == Some(&Scheme::HTTPS)
            || url.scheme() == Some(&Scheme::HTTP) && is_loopback)
}

impl Documents {
    /// Creates a client that trusts the system's roots, and `authorities` in PEM form. Reads files.
    pub(crate) fn new(authorities: Option<&str>) -> Result<Self, TlsError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(TIME_MAX));
        let connector = https_connector(tls::client_config(authorities, false)?, tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { client })
    }

    /// Fetches a document.
    pub(crate) async fn get(&self, url: &Uri) -> Result<Vec<u8>, DocumentError> {
        let fetched = tokio::time::timeout(TIME_MAX, self.fetch(url)).await;
        fetched.map_err(|_elapsed| DocumentError::Late)?
    }

    async fn fetch(&self, url: &Uri) -> Result<Vec<u8>, DocumentError> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| DocumentError::Unreachable(describe(&error)))?;
        if answer.status() != 200 {
            return Err(DocumentError::Status(answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                DocumentError::TooLarge
            } else {
                DocumentError::Unreachable(describe(&*error))
            }
        })?;
        Ok(body.to_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: keys are fetched by TLS, or from the machine itself.
    #[test]
    fn only_trustworthy_addresses_are_asked() {
        for (url, expected) in [
            ("https://issuer.example/keys", true),
            ("http://127.0.0.1:8080/keys", true),
            ("http://[::1]:8080/keys", true),
            ("http://localhost/keys", true),
            ("http://issuer.example/keys", false),
            ("http://127.0.0.1.example/keys", false),
            ("https://user@issuer.example/keys", false),
            ("ftp://issuer.example/keys", false),
            ("/keys", false),
        ] {
            assert_eq!(is_trustworthy(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
