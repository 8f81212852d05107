//! Requests to another registry by HTTP.
//!
//! Owns: [`RegistryClient`], which implements the port [`Peer`] with the OCI distribution API: redirects,
//! authentication, time limits. Refuses: trust in what arrives, which its user checks.
//!
//! Invariants: an answer is received piece by piece, so memory does not depend on its size. What another registry sends
//! decides at most where a request without credentials goes.

mod address;
mod authorization;
mod body;
mod challenge;
mod connection;
mod credentials;
mod redirect;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::BoxStream;
use http::HeaderValue;
use hyper::body::Body as _;

pub use self::address::{InvalidAddress, RegistryAddress};
use self::authorization::Authorization;
use self::connection::{Connections, Fields};
pub use self::credentials::{RegistryCredentials, Secret};
use crate::clock::RunningClock;
use crate::registry::peer::{ContentKind, Peer, PeerContent, PeerError, Wanted};
use crate::tls::{self, TlsError};

/// Bytes that arrive.
type Content = BoxStream<'static, Result<Bytes, PeerError>>;

/// Media types of manifests. Some registries convert a manifest for a client that does not accept its type.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, */*";

/// Time limits on another registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerLimits {
    /// Time to connect.
    pub(crate) connect: Duration,
    /// Time to connect, negotiate TLS and send the head of an answer.
    pub(crate) head: Duration,
    /// The period in which [`Self::bytes_per_period`] must arrive.
    pub(crate) period: Duration,
    /// Least bytes of a period: 16 KiB in a second by default.
    pub(crate) bytes_per_period: u64,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(30),
            period: Duration::from_secs(30),
            bytes_per_period: 30 * (16 << 10),
        }
    }
}

/// A client of one other registry.
#[derive(Debug)]
pub struct RegistryClient {
    address: RegistryAddress,
    authorization: Authorization,
    connections: Connections,
}

impl RegistryClient {
    /// Creates a client that connects on demand. `authorities` are certificates in PEM form that it trusts in addition
    /// to those of the system.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn new(
        address: RegistryAddress,
        credentials: Option<RegistryCredentials>,
        authorities: Option<String>,
    ) -> Result<Self, TlsError> {
        Self::with_limits(address, credentials, authorities, PeerLimits::default()).await
    }

    pub(crate) async fn with_limits(
        address: RegistryAddress,
        credentials: Option<RegistryCredentials>,
        authorities: Option<String>,
        limits: PeerLimits,
    ) -> Result<Self, TlsError> {
        // A registry without TLS may redirect to a server with TLS, so there is always a configuration.
        let is_https = address.is_https();
        let tls = tokio::task::spawn_blocking(move || {
            tls::client_config(authorities.as_deref(), is_https)
        });
        let tls = tls
            .await
            .map_err(|error| rustls::Error::General(error.to_string()))??;
        Ok(Self {
            address,
            authorization: Authorization::new(credentials),
            connections: Connections::new(tls, limits, RunningClock::start()),
        })
    }

    /// Asks for content, and again after the registry wanted another authorization.
    async fn fetch_content(&self, wanted: Wanted) -> Result<PeerContent, PeerError> {
        let url = self.address.url(&wanted);
        let url = url.map_err(|error| PeerError::Unreachable(error.to_string()))?;
        let repository = self.address.repository(&wanted.repository);
        let accept = match wanted.kind {
            ContentKind::Blob => HeaderValue::from_static("*/*"),
            ContentKind::Manifest => HeaderValue::from_static(MANIFEST_TYPES),
        };
        let mut fields = Fields {
            accept,
            authorization: self.authorization.kept(&repository),
        };
        let (mut answer, is_origin) = self
            .connections
            .get_redirected(&url, fields.clone())
            .await?;
        if answer.status() == 401 && is_origin {
            let challenge = challenge::read(answer.headers());
            let answered =
                self.authorization
                    .answer(&self.connections, challenge, &url, &repository);
            fields.authorization = Some(answered.await?);
            (answer, _) = self.connections.get_redirected(&url, fields).await?;
        }
        match answer.status().as_u16() {
            200 => {}
            404 => return Err(PeerError::NotFound),
            status @ (401 | 403) => {
                return Err(PeerError::Denied(status.to_string()));
            }
            status => return Err(PeerError::Status(status)),
        }
        let body = answer.into_body();
        Ok(PeerContent {
            length: body.size_hint().exact(),
            bytes: self.connections.content(body),
        })
    }
}

impl Peer for RegistryClient {
    fn fetch(&self, wanted: Wanted) -> BoxFuture<'_, Result<PeerContent, PeerError>> {
        self.fetch_content(wanted).boxed()
    }
}
