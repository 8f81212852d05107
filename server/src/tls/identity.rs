//! A certificate chain with its private key.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

use super::error::TlsError;
use crate::kept_files::FileError;

/// A certificate chain with its private key, and what its first certificate says.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    /// First and last second in which it is valid, in Unix time.
    pub(super) valid_unix_s: [i64; 2],
    /// The names and addresses that it is for, sorted.
    pub(super) hosts: Vec<String>,
    /// Whether it is shown only until there is one that clients trust.
    pub(super) is_placeholder: bool,
}

/// A file with its content.
pub(super) type Content<'a> = (&'a Path, &'a [u8]);

impl Identity {
    /// Reads a chain and its key, both in PEM form.
    ///
    /// # Errors
    /// There is no certificate, or no key, or they do not belong together.
    pub(super) fn from_pem(
        (chain_path, chain): Content<'_>,
        (key_path, key): Content<'_>,
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| FileError::unusable(chain_path, error))?;
        let Some(first) = chain.first() else {
            let why = "it has no certificate in PEM form";
            return Err(FileError::unusable(chain_path, why).into());
        };
        let (_, parsed) = parse_x509_certificate(first)
            .map_err(|error| FileError::unusable(chain_path, error))?;
        let validity = parsed.validity();
        let valid_unix_s = [&validity.not_before, &validity.not_after].map(ASN1Time::timestamp);
        let hosts = hosts(&parsed);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            let why = format!("it has no private key in PEM form ({error})");
            FileError::unusable(key_path, why)
        })?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                let why = format!("it is not the key of {}", chain_path.display());
                return FileError::unusable(key_path, why);
            }
            FileError::unusable(key_path, error)
        })?;
        Ok(Self {
            certified: Arc::new(certified),
            valid_unix_s,
            hosts,
            is_placeholder: false,
        })
    }
}

fn hosts(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map_or(&[][..], |found| &found.value.general_names);
    let mut hosts: Vec<_> = names.iter().filter_map(host).collect();
    hosts.sort_unstable();
    hosts
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other kinds of names are not those of servers"
)]
fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}
