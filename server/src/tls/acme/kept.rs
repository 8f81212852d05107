//! What is kept of an authority: the account, the certificate with its key, and when one was last ordered.
//!
//! Owns: the files. Each authority has a folder of its own, so that a certificate of a test authority is not taken for
//! one of another. Certificate and key are in one file, so a stop leaves both of the old or both of the new.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::CryptoProvider;
use time::{Duration, OffsetDateTime};
use tonnage_engine::{Algorithm, Digest};

use super::super::error::TlsError;
use super::super::identity::Identity;
use super::AcmeOptions;
use crate::kept_files::{self, FileError, SECRET};

/// How long the placeholder is valid, before it is made and from then on: clients reject it anyway, and the metric of
/// the end shows that it is none.
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

    fn ordered_path(&self) -> PathBuf {
        self.folder().join("ordered")
    }

    /// Returns the certificate that is kept; `None` if there is none. One that cannot be used is logged, and replaced
    /// by the next.
    pub(in crate::tls) fn kept(
        &self,
        provider: &CryptoProvider,
    ) -> Result<Option<Identity>, FileError> {
        let path = self.certificate_path();
        let Some(pem) = kept_files::read_if_there(&path)? else {
            return Ok(None);
        };
        let identity = Identity::from_pem((&path, &pem), (&path, &pem), provider);
        Ok(identity
            .inspect_err(|error| tracing::warn!(%error, "the certificate is fetched again"))
            .ok())
    }

    /// Keeps a certificate with its key, both in PEM form. Returns it as it is kept.
    pub(super) fn keep(
        &self,
        chain: &str,
        key: &str,
        provider: &CryptoProvider,
    ) -> Result<Identity, TlsError> {
        let path = self.certificate_path();
        let pem = format!("{key}\n{chain}");
        let bytes = pem.as_bytes();
        let identity = Identity::from_pem((&path, bytes), (&path, bytes), provider)?;
        kept_files::replace(&path, &pem, SECRET)?;
        Ok(identity)
    }

    /// Makes a certificate to show until the first one of the authority arrives. No client trusts it. Most of its life
    /// is over, so another one is due at once.
    pub(in crate::tls) fn placeholder(
        &self,
        provider: &CryptoProvider,
    ) -> Result<Identity, TlsError> {
        let mut params = CertificateParams::new(self.names.clone())?;
        let (now, [before, after]) = (OffsetDateTime::now_utc(), PLACEHOLDER_VALID);
        (params.not_before, params.not_after) = (now - before, now + after);
        let key = KeyPair::generate()?;
        let (pem, key) = (params.self_signed(&key)?.pem(), key.serialize_pem());
        let path = self.certificate_path();
        Identity::from_pem((&path, pem.as_bytes()), (&path, key.as_bytes()), provider)
    }

    /// Records that a certificate is ordered now, so that a restart does not order at once if this fails. Fails if
    /// nothing can be written, so that no certificate is ordered that cannot be kept.
    pub(super) fn record_order(&self) -> Result<(), FileError> {
        kept_files::replace(&self.ordered_path(), &unix_s().to_string(), SECRET)
    }

    /// Records that the last order is finished.
    pub(super) fn record_end(&self) -> Result<(), FileError> {
        kept_files::replace(&self.ordered_path(), "0", SECRET)
    }

    /// Returns when a certificate was ordered last that was not finished, in Unix time.
    pub(super) fn last_order_unix_s(&self) -> Result<i64, FileError> {
        let found = kept_files::read_if_there(&self.ordered_path())?;
        let text = found.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or_default())
    }
}

/// Returns the time in seconds of Unix.
pub(super) fn unix_s() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
