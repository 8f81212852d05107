//! Certificates of clients: whose are accepted.
//!
//! Owns: [`ClientCertificates`] and the verifier made from it. A certificate is optional, because most clients have
//! none; one that cannot be verified ends the handshake.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
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

/// Returns whether some authority of `old` is not in `new`, both in PEM form.
pub(super) fn has_lost_one(old: &[u8], new: &[u8]) -> bool {
    let new: Vec<_> = CertificateDer::pem_slice_iter(new)
        .filter_map(Result::ok)
        .collect();
    CertificateDer::pem_slice_iter(old).any(|one| one.is_ok_and(|one| !new.contains(&one)))
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
