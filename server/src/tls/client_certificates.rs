//! Certificates of clients: whose are accepted.
//!
//! Owns: [`ClientCertificates`] and the verifier made from it. A certificate is optional, because most clients have
//! none; one that cannot be verified ends the handshake.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::client::add_authorities;
use super::client_names::NameKind;
use super::error::TlsError;
use crate::kept_files::{self, FileError};

/// Which certificates of clients are accepted, and what in them is a name.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    /// The authorities, in PEM form.
    pub authorities: PathBuf,
    /// Kinds of names, in the order in which they are used.
    pub names: Vec<NameKind>,
}

impl ClientCertificates {
    /// Reads the authorities.
    pub(super) fn read(&self) -> Result<Vec<u8>, FileError> {
        kept_files::read(&self.authorities)
    }

    /// Creates the verifier for authorities that were read.
    pub(super) fn verifier(
        &self,
        pem: &[u8],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        add_authorities(&mut roots, pem)
            .map_err(|why| FileError::unusable(&self.authorities, why))?;
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let built = builder.allow_unauthenticated().build();
        Ok(built.map_err(|error| FileError::unusable(&self.authorities, error))?)
    }
}
