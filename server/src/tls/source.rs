//! Where the certificate of a listener comes from.
//!
//! Owns: [`TlsSource`]: two files that somebody else maintains, the registry's own authority with the files that it
//! keeps, or an authority that speaks ACME (`acme`). Refuses: showing the certificate to clients (`server`).
//!
//! Invariants: an authority is never replaced, because clients trust it; one that lost its key is an error. A
//! certificate is replaced with its key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use tonnage_engine::{Algorithm, Digest};

use super::acme::AcmeOptions;
use super::authority::Authority;
use super::error::TlsError;
use super::identity::Identity;
use crate::kept_files::{self, FileError, PUBLIC, SECRET};

/// Interval of looks at files that are replaced elsewhere.
const LOOK_AT_FILES: Duration = Duration::from_secs(5);
/// Interval of looks whether an own certificate is to be renewed.
const LOOK_AT_OWN: Duration = Duration::from_hours(1);

/// How long before the end of the authority the log warns: there is time to tell all clients.
const WARN_BEFORE_S: i64 = 180 * 24 * 60 * 60;

/// Where a certificate comes from.
#[derive(Debug, Clone)]
pub enum TlsSource {
    /// Two files in PEM form, which somebody else replaces.
    Files {
        /// The certificate, followed by those of intermediate authorities.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// The registry's own authority.
    Own(OwnAuthority),
    /// An authority that speaks ACME.
    Acme(AcmeOptions),
}

/// The registry's own authority and its server's certificate, in a directory.
#[derive(Debug, Clone)]
pub struct OwnAuthority {
    /// The directory, which is created.
    pub directory: PathBuf,
    /// Names and addresses of the server, at least one.
    pub hosts: Vec<String>,
}

impl TlsSource {
    /// Returns what the source has at a start.
    pub(super) fn identity(&self, provider: &CryptoProvider) -> Result<Identity, TlsError> {
        match self {
            Self::Files { certificate, key } => pair(certificate, key, provider),
            Self::Own(own) => own.identity(provider),
            Self::Acme(acme) => {
                match acme.certificate(provider) {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) => {}
                    Err(error @ TlsError::File(FileError::Io { .. })) => return Err(error),
                    Err(error) => tracing::warn!(%error, "the certificate is fetched again"),
                }
                tracing::info!(
                    names = ?acme.names,
                    "there is no certificate yet: clients reject the connection until the first one arrives"
                );
                acme.placeholder(provider)
            }
        }
    }

    /// Returns what the source has now; `None` if that is only a placeholder.
    pub(super) fn newest(&self, provider: &CryptoProvider) -> Result<Option<Identity>, TlsError> {
        match self {
            Self::Files { .. } | Self::Own(_) => self.identity(provider).map(Some),
            Self::Acme(acme) => acme.certificate(provider),
        }
    }

    /// Returns whether a certificate of the source is to be shown in place of the one that is `shown`.
    pub(super) fn replaces(&self, shown: &Identity, new: &Identity) -> bool {
        match self {
            Self::Files { .. } | Self::Own(_) => shown.certified.cert != new.certified.cert,
            Self::Acme(acme) => acme.is_better(new, shown),
        }
    }

    /// Returns how often to look for another certificate.
    pub(crate) fn interval(&self) -> Duration {
        match self {
            Self::Files { .. } | Self::Acme(_) => LOOK_AT_FILES,
            Self::Own(_) => LOOK_AT_OWN,
        }
    }
}

fn pair(chain: &Path, key: &Path, provider: &CryptoProvider) -> Result<Identity, TlsError> {
    let (chain_pem, key_pem) = (kept_files::read(chain)?, kept_files::read(key)?);
    Identity::from_pem((chain, &chain_pem), (key, &key_pem), provider)
}

impl OwnAuthority {
    /// Returns the file with the authority's certificate, which clients have to trust.
    pub fn authority_path(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Returns the SHA-256 of the authority's certificate as clients show it: pairs of digits with colons.
    pub fn fingerprint(&self) -> Result<String, TlsError> {
        let path = self.authority_path();
        let certificate = CertificateDer::from_pem_slice(&kept_files::read(&path)?)
            .map_err(|error| FileError::unusable(&path, error))?;
        let digest = Digest::of(Algorithm::Sha256, &certificate);
        let pairs = digest.as_bytes().iter().map(|byte| format!("{byte:02X}"));
        let pairs: Vec<_> = pairs.collect();
        Ok(pairs.join(":"))
    }

    /// Returns the certificate of the server. Makes one if there is none, or if it is for other hosts, of another
    /// authority, or near its end.
    fn identity(&self, provider: &CryptoProvider) -> Result<Identity, TlsError> {
        let (authority_pem, authority_key) = self.authority()?;
        self.check_authority(&authority_pem, &authority_key, provider)?;
        let (chain, key) = (
            self.directory.join("server.pem"),
            self.directory.join("server.key"),
        );
        // A stop between the two replacements leaves a pair that does not match.
        if let Ok(found) = pair(&chain, &key, provider)
            && self.is_current(&found, &authority_pem)
        {
            return Ok(found);
        }
        let authority = Authority::from_pem(&authority_pem, &authority_key)?;
        let [certificate, new_key] = authority.issue(&self.hosts)?;
        kept_files::replace(&key, &new_key, SECRET)?;
        kept_files::replace(&chain, &format!("{certificate}{authority_pem}"), PUBLIC)?;
        tracing::info!(hosts = ?self.hosts, path = %chain.display(), "a certificate was made");
        pair(&chain, &key, provider)
    }

    /// Returns certificate and key of the authority. Makes them if there are none.
    fn authority(&self) -> Result<(String, String), TlsError> {
        let (path, key_path) = (self.authority_path(), self.directory.join("ca.key"));
        let (found, key) = (
            kept_files::read_if_there(&path)?,
            kept_files::read_if_there(&key_path)?,
        );
        let key = match (&found, key) {
            (_, Some(key)) => kept_files::text(&key_path, key)?,
            (None, None) => {
                let key = KeyPair::generate()?.serialize_pem();
                kept_files::replace(&key_path, &key, SECRET)?;
                key
            }
            (Some(_), None) => {
                let why = "its key, ca.key, is missing: restore it, or move ca.pem away and let all clients trust the new authority";
                return Err(FileError::unusable(&path, why).into());
            }
        };
        if let Some(found) = found {
            return Ok((kept_files::text(&path, found)?, key));
        }
        // Also after a stop between the two files.
        let host = self.hosts.first().map_or("localhost", String::as_str);
        let made = Authority::make(&KeyPair::from_pem(&key)?, host)?;
        kept_files::replace(&path, &made, PUBLIC)?;
        Ok((made, key))
    }

    /// Fails if the authority's key is not its own. Warns if clients do not accept the authority now, or soon.
    fn check_authority(
        &self,
        pem: &str,
        key: &str,
        provider: &CryptoProvider,
    ) -> Result<(), TlsError> {
        let (path, key_path) = (self.authority_path(), self.directory.join("ca.key"));
        let authority = Identity::from_pem(
            (&path, pem.as_bytes()),
            (&key_path, key.as_bytes()),
            provider,
        )?;
        let ([begin, end], now) = (
            authority.valid_unix_s,
            OffsetDateTime::now_utc().unix_timestamp(),
        );
        if now < begin || end.saturating_sub(now) < WARN_BEFORE_S {
            tracing::warn!(
                path = %path.display(),
                begin_unix_s = begin,
                end_unix_s = end,
                "clients do not accept the authority, or soon will not: check the clock; else move ca.pem and ca.key away, restart, and let all clients trust the new one"
            );
        }
        Ok(())
    }

    /// Returns whether a certificate can stay.
    fn is_current(&self, found: &Identity, authority_pem: &str) -> bool {
        let mut hosts = self.hosts.clone();
        hosts.sort_unstable();
        let [begin, end] = found.valid_unix_s;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let left = end.saturating_sub(now);
        let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes()).ok();
        found.hosts == hosts
            && begin <= now
            && left > end.saturating_sub(begin) / 3
            && authority.as_ref() == found.certified.cert.last()
    }
}
