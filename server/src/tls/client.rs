//! The configuration for connections to other servers.
//!
//! Trusted are the system's root certificates, as for other programs on the machine: an operator adds an own authority
//! there once. A list compiled into the program would not know it, and would age with the program. The verifiers of
//! operating systems have no advantage on Linux: they read the same files.

use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::error::TlsError;

/// Creates the configuration for connections to other servers. It trusts the roots of the system, and the certificates
/// in `authorities`, which is PEM. Reads files.
///
/// # Errors
/// [`TlsError::NoRoots`] only if TLS is `required`; without roots, every connection by TLS fails.
pub fn client_config(authorities: Option<&str>, required: bool) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "some root certificates of the system could not be read");
    }
    // Old certificates that the library rejects are no reason not to connect to a server that needs others.
    roots.add_parsable_certificates(system.certs);
    if let Some(pem) = authorities {
        add_authorities(&mut roots, pem.as_bytes()).map_err(TlsError::Authority)?;
    }
    if required && roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Creates a connector for HTTP/1.1, with TLS where an address begins with `https://`.
pub fn https_connector(
    config: ClientConfig,
    mut tcp: HttpConnector,
) -> HttpsConnector<HttpConnector> {
    tcp.enforce_http(false);
    HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp)
}

/// Trusts the certificates in `pem`. The error says what is wrong with it.
pub(super) fn add_authorities(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        count += 1;
    }
    if count == 0 {
        return Err("it has no certificate in PEM form".to_owned());
    }
    Ok(())
}
