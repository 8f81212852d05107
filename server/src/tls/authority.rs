//! The registry's own certificate authority.
//!
//! Owns: [`Authority`], which makes certificates for one server. Refuses: where they are kept (`source`).
//!
//! The authority is valid for ten years, because every client has to be told to trust it. It signs nothing but this
//! server's certificates, which are short-lived and replaced in time.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::error::TlsError;

const AUTHORITY_VALID: Duration = Duration::days(3650);
/// How long a server's certificate is valid. Some clients reject more than 398 days.
const SERVER_VALID: Duration = Duration::days(90);
/// Clocks of clients may be late.
const VALID_BEFORE: Duration = Duration::hours(24);

/// An authority, to sign with.
pub(super) struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Makes the certificate of an authority with this key, named after a host. Returns it in PEM form.
    pub(super) fn make(key: &KeyPair, host: &str) -> Result<String, TlsError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = name(&format!("Tonnage CA of {host}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, AUTHORITY_VALID);
        Ok(params.self_signed(key)?.pem())
    }

    /// Takes an authority with its key, both in PEM form.
    pub(super) fn from_pem(certificate: &str, key: &str) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(key)?;
        Ok(Self(Issuer::from_ca_cert_pem(certificate, key)?))
    }

    /// Makes a certificate for a server under `hosts`, names and addresses, with a new key. Returns both in PEM form.
    pub(super) fn issue(&self, hosts: &[String]) -> Result<[String; 2], TlsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name = name("Tonnage");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, SERVER_VALID);
        let certificate = params.signed_by(&key, &self.0)?;
        Ok([certificate.pem(), key.serialize_pem()])
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn set_validity(params: &mut CertificateParams, valid: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - VALID_BEFORE;
    params.not_after = now + valid;
}
