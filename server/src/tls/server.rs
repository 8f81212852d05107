//! The configuration of listeners.
//!
//! Owns: [`ServerTls`]. Its certificate, and the authorities of clients, can be replaced while connections are served:
//! those that are open keep theirs.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConnection};
use rustls::sign::CertifiedKey;

use super::client_certificates::ClientCertificates;
use super::client_names::ClientName;
use super::error::TlsError;
use super::identity::Identity;
use super::source::TlsSource;

/// The protocol that is chosen for a client that speaks both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AlpnPreference {
    /// HTTP/2.
    #[default]
    Http2,
    /// HTTP/1.1: some clients pull large blobs faster with it.
    Http1,
}

/// How connections are encrypted, beside the certificate.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// The protocol for clients that speak both.
    pub preference: AlpnPreference,
    /// Which certificates of clients are accepted; `None` for none.
    pub clients: Option<ClientCertificates>,
}

/// The TLS of listeners: certificate, protocols and sessions. Clones share it.
#[derive(Debug, Clone)]
pub struct ServerTls {
    current: Arc<ArcSwap<Current>>,
    shown: Arc<Shown>,
    options: Arc<TlsOptions>,
    pub(super) source: TlsSource,
}

/// How handshakes are answered.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The authorities of clients, as they were read.
    authorities: Option<Vec<u8>>,
}

/// The certificate that new connections get.
struct Shown(ArcSwap<Identity>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let valid = self.0.load().valid_unix_s;
        f.debug_struct("Shown")
            .field("valid_unix_s", &valid)
            .finish()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().certified))
    }
}

impl ServerTls {
    /// Reads or makes the certificate. Reads and writes files.
    ///
    /// # Errors
    /// The certificate or its key cannot be used, or cannot be made.
    pub fn open(source: TlsSource, options: TlsOptions) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let identity = source.identity(&provider)?;
        let shown = Arc::new(Shown(ArcSwap::from_pointee(identity)));
        let clients = options.clients.as_ref();
        let authorities = clients.map(ClientCertificates::read).transpose()?;
        let current = Current::new(&provider, &shown, &options, authorities)?;
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(current)),
            shown,
            options: Arc::new(options),
            source,
        })
    }

    /// Returns how handshakes are answered.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Returns the name of the client of a connection after its handshake, if it has shown a certificate.
    pub(crate) fn client_name(&self, connection: &ServerConnection) -> Option<ClientName> {
        let clients = self.options.clients.as_ref()?;
        ClientName::of(connection.peer_certificates()?.first()?, &clients.names)
    }

    /// Returns where the certificate comes from.
    pub fn source(&self) -> &TlsSource {
        &self.source
    }

    /// Shows the newest certificate of the source from now on. Returns whether it is another one. Reads and may write
    /// files.
    ///
    /// # Errors
    /// It cannot be used; the one before stays.
    pub(crate) fn renew(&self) -> Result<bool, TlsError> {
        let new = self.source.identity(self.config().crypto_provider())?;
        let old = self.shown.0.load();
        if old.certified.cert == new.certified.cert {
            return Ok(false);
        }
        self.shown.0.store(Arc::new(new));
        Ok(true)
    }

    /// Accepts certificates of clients from the authorities that their file has now. Returns whether they are others.
    ///
    /// # Errors
    /// The file cannot be used; the authorities before stay.
    pub(super) fn renew_authorities(&self) -> Result<bool, TlsError> {
        let Some(clients) = &self.options.clients else {
            return Ok(false);
        };
        let (old, new) = (self.current.load(), Some(clients.read()?));
        if old.authorities == new {
            return Ok(false);
        }
        let provider = old.config.crypto_provider();
        let current = Current::new(provider, &self.shown, &self.options, new)?;
        self.current.store(Arc::new(current));
        Ok(true)
    }

    /// Returns the last second in which the certificate is valid, in Unix time.
    pub(crate) fn expires_unix_s(&self) -> i64 {
        let [_, end] = self.shown.0.load().valid_unix_s;
        end
    }
}

impl Current {
    /// Creates the configuration. It has keys of its own for sessions, so that none of them outlives its authority.
    fn new(
        provider: &Arc<CryptoProvider>,
        shown: &Arc<Shown>,
        options: &TlsOptions,
        authorities: Option<Vec<u8>>,
    ) -> Result<Self, TlsError> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(shown) as _;
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()?;
        let builder = match options.clients.as_ref().zip(authorities.as_deref()) {
            Some((clients, pem)) => {
                builder.with_client_cert_verifier(clients.verifier(pem, provider)?)
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver);
        // Sessions that the clients keep, so that they cost no memory here.
        config.ticketer = Ticketer::new()?;
        let (http1, http2) = (b"http/1.1".to_vec(), b"h2".to_vec());
        config.alpn_protocols = match options.preference {
            AlpnPreference::Http2 => vec![http2, http1],
            AlpnPreference::Http1 => vec![http1, http2],
        };
        Ok(Self {
            config: Arc::new(config),
            authorities,
        })
    }
}

impl Collector for ServerTls {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = ConstGauge::new(self.expires_unix_s());
        let encoded = encoder.encode_descriptor(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate of the listeners expires, in Unix time",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(encoded)
    }
}
