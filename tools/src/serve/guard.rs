//! How a server that starts is guarded: encryption and access control.
//!
//! Owns: [`GuardOptions`], and the order of what it reads and makes. A certificate of somebody else is read before
//! anything is changed. The own authority, certificates that were fetched, and the list of users are in the store's
//! directory, so they come after the store.

use std::path::Path;

use tonnage_server::tls::{ServerTls, TlsError, TlsOptions, TlsSource};
use tonnage_server::{Bound, FileError};

use super::access::{self, Access};
use crate::config::options::AuthConfig;
use crate::exit::Exit;
use crate::failure::Failure;

/// How a server is guarded.
#[derive(Debug)]
pub(crate) struct GuardOptions {
    /// Where the certificate comes from; `None` without TLS.
    pub(crate) tls: Option<TlsSource>,
    /// How connections are encrypted, beside the certificate.
    pub(crate) tls_options: TlsOptions,
    /// Who may do what.
    pub(crate) auth: AuthConfig,
}

impl GuardOptions {
    /// Returns how many threads it needs at least: one for the certificate, two more to fetch it and to resolve the
    /// name of its authority, and three for users, their passwords, and what is written about them.
    pub(crate) fn threads(&self) -> usize {
        let fetches = matches!(self.tls, Some(TlsSource::Acme(_)));
        usize::from(self.tls.is_some())
            + 2 * usize::from(fetches)
            + 3 * usize::from(self.auth.enabled)
    }

    /// Reads the certificate of somebody else, if there is one.
    pub(super) fn read_certificate(&self) -> Result<Option<ServerTls>, Failure> {
        match &self.tls {
            Some(source @ TlsSource::Files { .. }) => self.open_tls(source).map(Some),
            Some(TlsSource::Own(_) | TlsSource::Acme(_)) | None => Ok(None),
        }
    }

    /// Guards a server whose store is open in `data`, with the certificate that was read. Returns its access control.
    pub(super) fn apply(
        &self,
        bound: &mut Bound,
        certificate: Option<ServerTls>,
        data: &Path,
    ) -> Result<Option<Access>, Failure> {
        let tls = match &self.tls {
            Some(source @ (TlsSource::Own(_) | TlsSource::Acme(_))) => Some(self.open_tls(source)?),
            Some(TlsSource::Files { .. }) | None => certificate,
        };
        if let Some(tls) = tls {
            bound.set_tls(tls);
        }
        let access = access::open(&self.auth, data)?;
        if let Some(access) = &access {
            bound.set_access(&access.control);
        }
        Ok(access)
    }

    fn open_tls(&self, source: &TlsSource) -> Result<ServerTls, Failure> {
        ServerTls::open(source.clone(), self.tls_options.clone()).map_err(|error| {
            let exit = if matches!(error, TlsError::File(FileError::Unusable { .. })) {
                Exit::Usage
            } else {
                Exit::Disk
            };
            Failure::new(exit, format!("TLS cannot start: {error}"))
        })
    }
}
