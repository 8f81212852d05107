//! The configuration of listeners.
//!
//! Owns: [`ServerTls`]. Its certificate, and the authorities of clients, can be replaced while connections are served.
//! Those that are open keep the certificate; the name of a client ends with its authority.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConnection};
use rustls::sign::CertifiedKey;

use super::acme::{Challenges, PROTOCOL, Renewal};
use super::client_certificates::{ClientCertificates, has_lost_one};
use super::client_names::{ClientName, Trust};
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
    /// Attempts to fetch a certificate that failed.
    pub(super) failures: Arc<AtomicU64>,
}

/// How handshakes are answered.
#[derive(Debug)]
pub(crate) struct Current {
    config: Arc<ServerConfig>,
    options: Arc<TlsOptions>,
    /// The authorities of clients, as they were read.
    authorities: Option<Vec<u8>>,
    trust: Trust,
}

impl Current {
    /// Returns how a handshake is answered.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Returns the name of the client of a connection after its handshake, if it has shown a certificate.
    pub(crate) fn client_name(&self, connection: &ServerConnection) -> Option<ClientName> {
        let clients = self.options.clients.as_ref()?;
        let certificate = connection.peer_certificates()?.first()?;
        ClientName::of(certificate, &clients.names, &self.trust)
    }
}

/// The certificate that new connections get.
struct Shown {
    identity: ArcSwap<Identity>,
    /// Held while it is compared and replaced.
    replacing: Mutex<()>,
    challenges: Arc<Challenges>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let valid = self.identity.load().valid_unix_s;
        f.debug_struct("Shown")
            .field("valid_unix_s", &valid)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if Challenges::is_asked_for(&hello) {
            return self.challenges.find(hello.server_name());
        }
        Some(Arc::clone(&self.identity.load().certified))
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
        let shown = Arc::new(Shown {
            identity: ArcSwap::from_pointee(identity),
            replacing: Mutex::default(),
            challenges: Arc::default(),
        });
        let clients = options.clients.as_ref();
        let authorities = clients.map(ClientCertificates::read).transpose()?;
        let speaks_acme = matches!(source, TlsSource::Acme(_));
        let options = Arc::new(options);
        let current = Current::new(&provider, &shown, &options, authorities, speaks_acme)?;
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(current)),
            shown,
            options,
            source,
            failures: Arc::default(),
        })
    }

    /// Returns how a handshake that begins now is answered, and what its certificates are worth.
    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current.load().config()
    }

    /// Returns whether the client of a connection only verifies a name. It sends no requests, and gets no answers.
    pub(crate) fn is_verification(connection: &ServerConnection) -> bool {
        connection.alpn_protocol() == Some(PROTOCOL)
    }

    /// Returns the certificate that is shown.
    pub(super) fn shown(&self) -> Arc<Identity> {
        self.shown.identity.load_full()
    }

    /// Returns what fetches certificates, if the source is an authority that speaks ACME.
    pub(super) fn fetching(&self) -> Option<Renewal> {
        let TlsSource::Acme(acme) = &self.source else {
            return None;
        };
        let provider = Arc::clone(self.config().crypto_provider());
        let challenges = Arc::clone(&self.shown.challenges);
        Some(Renewal::new(acme.clone(), challenges, provider))
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
        let new = self.source.newest(self.config().crypto_provider())?;
        Ok(new.is_some_and(|new| self.show(new)))
    }

    /// Shows a certificate of the source from now on, unless the one before is as good. Returns whether it is shown.
    pub(super) fn show(&self, new: Identity) -> bool {
        let _replacing = self.shown.replacing.lock();
        let replaces = self.source.replaces(&self.shown(), &new);
        if replaces {
            self.shown.identity.store(Arc::new(new));
        }
        replaces
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
        let speaks_acme = matches!(self.source, TlsSource::Acme(_));
        let mut current = Current::new(provider, &self.shown, &self.options, new, speaks_acme)?;
        let lost = old
            .authorities
            .as_deref()
            .zip(current.authorities.as_deref());
        let lost_one = lost.is_none_or(|(old, new)| has_lost_one(old, new));
        if !lost_one {
            current.trust = old.trust.clone();
        }
        self.current.store(Arc::new(current));
        if lost_one {
            // Also the names of connections that are open.
            old.trust.withdraw();
        }
        Ok(true)
    }

    /// Returns the last second in which the certificate is valid, in Unix time.
    pub(crate) fn expires_unix_s(&self) -> i64 {
        let [_, end] = self.shown.identity.load().valid_unix_s;
        end
    }
}

impl Current {
    /// Creates the configuration. It has keys of its own for sessions, so that none of them outlives its authority.
    fn new(
        provider: &Arc<CryptoProvider>,
        shown: &Arc<Shown>,
        options: &Arc<TlsOptions>,
        authorities: Option<Vec<u8>>,
        speaks_acme: bool,
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
        if speaks_acme {
            config.alpn_protocols.push(PROTOCOL.to_vec());
        }
        Ok(Self {
            config: Arc::new(config),
            options: Arc::clone(options),
            authorities,
            trust: Trust::new(),
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
        gauge.encode(encoded)?;
        if let TlsSource::Acme(_) = self.source {
            let counter = ConstCounter::new(self.failures.load(Ordering::Relaxed));
            let encoded = encoder.encode_descriptor(
                "tls_acme_failures",
                "Attempts to fetch a certificate from the authority that failed",
                None,
                counter.metric_type(),
            )?;
            counter.encode(encoded)?;
        }
        Ok(())
    }
}
