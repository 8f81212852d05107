//! The files of an authority: the account, the certificate with its key, and the pause before the next attempt.
//!
//! Owns: their names and content. Each authority has a folder of its own, so that a certificate of a test authority is
//! not taken for one of another. Certificate and key are in one file, so a stop leaves both of the old or both of the
//! new.

use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::CryptoProvider;
use time::{Duration, OffsetDateTime};
use tonnage_engine::{Algorithm, Digest};

use super::super::error::TlsError;
use super::super::identity::Identity;
use super::AcmeOptions;
use super::schedule::{self, Pause};
use crate::kept_files::{self, FileError, SECRET};
use crate::wall_clock::now_unix_s;

/// How long the placeholder is valid, before it is made and from then on. Clients reject it anyway, and the metric of
/// the end shows that it is not a certificate of the authority.
const PLACEHOLDER_VALID: [Duration; 2] = [Duration::days(1), Duration::hours(1)];

impl AcmeOptions {
    /// Returns the folder of the authority, named by its host and the digest of its whole address.
    fn folder(&self) -> PathBuf {
        let rest = self
            .url
            .split_once("://")
            .map_or(&*self.url, |(_, rest)| rest);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let allowed = |letter: char| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => letter,
            _ => '_',
        };
        let host: String = host.chars().map(allowed).take(100).collect();
        let digest = Digest::of(Algorithm::Sha256, self.url.as_bytes());
        let digits = digest
            .as_bytes()
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"));
        let digits: String = digits.collect();
        self.directory.join(format!("{host}-{digits}"))
    }

    /// Returns the file of the account.
    pub(super) fn account_path(&self) -> PathBuf {
        self.folder().join("account.json")
    }

    /// Returns the file with the certificate and its key.
    pub fn certificate_path(&self) -> PathBuf {
        self.folder().join("certificate.pem")
    }

    fn pause_path(&self) -> PathBuf {
        self.folder().join("ordered")
    }

    /// Reads the certificate with its key; `None` if there is none.
    pub(in crate::tls) fn certificate(
        &self,
        provider: &CryptoProvider,
    ) -> Result<Option<Identity>, TlsError> {
        match kept_files::read_if_there(&self.certificate_path())? {
            Some(pem) => self.identity(&pem, provider).map(Some),
            None => Ok(None),
        }
    }

    /// Returns what a certificate and its key say, both in the text of one file.
    pub(super) fn identity(
        &self,
        pem: &[u8],
        provider: &CryptoProvider,
    ) -> Result<Identity, TlsError> {
        let path = self.certificate_path();
        Identity::from_pem((&path, pem), (&path, pem), provider)
    }

    /// Returns whether a certificate is to be shown in place of an `old` one.
    pub(in crate::tls) fn is_better(&self, new: &Identity, old: &Identity) -> bool {
        schedule::is_better(new, old, &self.names)
    }

    /// Replaces the file with the certificate and its key.
    pub(super) fn write_certificate(&self, pem: &str) -> Result<(), FileError> {
        kept_files::replace(&self.certificate_path(), pem, SECRET)
    }

    /// Makes a certificate to show until the first one of the authority arrives. No client trusts it.
    pub(in crate::tls) fn placeholder(
        &self,
        provider: &CryptoProvider,
    ) -> Result<Identity, TlsError> {
        let mut params = CertificateParams::new(self.names.clone())?;
        let (now, [before, after]) = (OffsetDateTime::now_utc(), PLACEHOLDER_VALID);
        (params.not_before, params.not_after) = (now - before, now + after);
        let key = KeyPair::generate()?;
        let pem = format!("{}{}", key.serialize_pem(), params.self_signed(&key)?.pem());
        Ok(Identity {
            is_placeholder: true,
            ..self.identity(pem.as_bytes(), provider)?
        })
    }

    /// Writes the pause that holds now, also after a restart. Fails if the folder takes no files, so that nothing is
    /// ordered, and no account is made, that cannot be kept.
    pub(super) fn write_pause(&self, pause: &Pause) -> Result<(), FileError> {
        let path = self.pause_path();
        let text = serde_json::to_string(pause).map_err(|why| FileError::unusable(&path, why))?;
        kept_files::replace(&path, &text, SECRET)
    }

    /// Reads the pause that was written last; none if there is no file.
    pub(super) fn pause(&self) -> Result<Pause, FileError> {
        let path = self.pause_path();
        match kept_files::read_if_there(&path)? {
            Some(found) => {
                serde_json::from_slice(&found).map_err(|why| FileError::unusable(&path, why))
            }
            None => Ok(Pause::default()),
        }
    }
}

/// Returns the time in seconds of Unix, in the form of certificates.
pub(super) fn unix_s() -> i64 {
    i64::try_from(now_unix_s()).unwrap_or(i64::MAX)
}
