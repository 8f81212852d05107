//! Names of clients, from their certificates.
//!
//! Owns: [`NameKind`], [`ClientUri`] and [`ClientName`]. Refuses: verifying certificates, which the handshake does, and
//! what a name may do, which access control decides.
//!
//! Invariants: one kind of name gives the name of a client: the first of the configured kinds that its certificate has.
//! If that one cannot be used the client has no name, and never that of another kind. A name ends with its certificate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::wall_clock::now_unix_s;

/// Most bytes of a name: as many as the journal keeps of one.
const NAME_BYTES_MAX: usize = 256;
/// Most bytes of a trust domain of SPIFFE.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// A kind of name in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A URI among the alternative names, such as a SPIFFE id.
    Uri,
    /// A DNS name among the alternative names.
    Dns,
    /// The common name of the subject.
    CommonName,
}

impl NameKind {
    /// All kinds with their names, in the order in which they are used.
    pub const ALL: [(&'static str, Self); 3] = [
        ("uri", Self::Uri),
        ("dns", Self::Dns),
        ("cn", Self::CommonName),
    ];
}

/// A URI as the name of a client. One of SPIFFE names a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientUri(String);

/// The error that a text cannot be the URI of a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no URI of a client: write one of at most 256 characters, such as spiffe://example.org/ns/prod/sa/app"
)]
pub struct InvalidClientUri(String);

impl FromStr for ClientUri {
    type Err = InvalidClientUri;

    fn from_str(text: &str) -> Result<Self, InvalidClientUri> {
        if text.len() <= NAME_BYTES_MAX && is_uri(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidClientUri(
                text.chars().take(NAME_BYTES_MAX).collect(),
            ))
        }
    }
}

impl fmt::Display for ClientUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the syntax of a URI without a fragment (RFC 3986), and of a SPIFFE id (SPIFFE-ID section 2).
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
    let begins = scheme
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic());
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte);
    let is_uri =
        begins && scheme.bytes().all(letters) && !rest.is_empty() && rest.bytes().all(allowed);
    is_uri && (!scheme.eq_ignore_ascii_case("spiffe") || is_spiffe_id(text))
}

/// Returns whether a URI is a SPIFFE id of a workload, which has a path.
fn is_spiffe_id(uri: &str) -> bool {
    let id = uri
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'));
    let Some((domain, path)) = id else {
        return false;
    };
    let in_domain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_segment =
        |segment: &str| !["", ".", ".."].contains(&segment) && segment.bytes().all(in_path);
    (1..=TRUST_DOMAIN_BYTES_MAX).contains(&domain.len())
        && domain.bytes().all(in_domain)
        && path.split('/').all(is_segment)
}

/// Whether the authorities that verified certificates are still trusted. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Trust(Arc<AtomicBool>);

impl Trust {
    /// Creates trust that lasts until it is withdrawn.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Ends the names of all certificates that were verified with it.
    pub(super) fn withdraw(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn lasts(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Trust {}

/// The name of a client, from its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientName {
    name: Arc<str>,
    trust: Trust,
    /// Last second in which the certificate is valid, in Unix time.
    end_unix_s: i64,
}

impl ClientName {
    /// Returns the name in a certificate that was verified; `None` if it has none that can be used.
    pub(super) fn of(
        certificate: &CertificateDer<'_>,
        kinds: &[NameKind],
        trust: &Trust,
    ) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let name = kinds
            .iter()
            .find_map(|kind| name(&parsed, *kind).transpose());
        let Some(Ok(name)) = name else {
            tracing::debug!(subject = %parsed.subject(), "a client certificate has no name that can be used");
            return None;
        };
        Some(Self {
            name: name.into(),
            trust: trust.clone(),
            end_unix_s: parsed.validity().not_after.timestamp(),
        })
    }

    /// Returns the name; `None` once the certificate is no longer valid, or its authority was removed. A connection, or
    /// a session that a client resumes, may last longer.
    pub fn current(&self) -> Option<&str> {
        let is_valid = self.trust.lasts() && now_unix_s() <= self.until_unix_s();
        is_valid.then_some(&*self.name)
    }

    /// Returns the last second in which the certificate is valid, in Unix time.
    pub(crate) fn until_unix_s(&self) -> u64 {
        u64::try_from(self.end_unix_s).unwrap_or_default()
    }
}

/// That a certificate has a kind of name, and it cannot be used.
struct Unusable;

/// Returns the name of a kind; `None` if the certificate has none of it.
fn name(certificate: &X509Certificate<'_>, kind: NameKind) -> Result<Option<String>, Unusable> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_error| Unusable)?;
    let names = extension.map_or(&[][..], |found| &found.value.general_names);
    if names
        .iter()
        .any(|name| matches!(name, GeneralName::Invalid(..)))
    {
        return Err(Unusable);
    }
    let found = match kind {
        NameKind::Uri => return uri(names),
        NameKind::Dns => names.iter().find_map(dns_name),
        NameKind::CommonName => {
            let mut names = certificate.subject().iter_common_name();
            let first = names.next();
            // Which of several is the user would depend on their order.
            if names.next().is_some() {
                return Err(Unusable);
            }
            let text = first.map(|name| name.as_str().map_err(|_error| Unusable));
            text.transpose()?.map(str::to_owned)
        }
    };
    match found {
        Some(name) if name.is_empty() || name.len() > NAME_BYTES_MAX => Err(Unusable),
        found => Ok(found),
    }
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some(name.to_ascii_lowercase());
    }
    None
}

/// Returns the first URI. A certificate of SPIFFE has exactly one (X509-SVID section 2).
fn uri(names: &[GeneralName<'_>]) -> Result<Option<String>, Unusable> {
    let mut uris = Vec::new();
    for name in names {
        if let GeneralName::URI(uri) = name {
            uris.push(*uri);
        }
    }
    let is_spiffe = |uri: &&str| {
        let scheme = uri.split_once(':').map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe"))
    };
    if uris.len() > 1 && uris.iter().any(is_spiffe) {
        return Err(Unusable);
    }
    let first = uris.first().map(|uri| uri.parse::<ClientUri>());
    let first = first.transpose().map_err(|_invalid| Unusable)?;
    Ok(first.map(|uri| uri.to_string()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    /// Returns the name in a certificate with these alternative names, each `KIND=NAME`, and `cn` as common name.
    fn named(alternative: &[&str], kinds: &[NameKind]) -> Option<String> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "cn");
        params.subject_alt_names = alternative
            .iter()
            .map(|name| match name.split_once('=').unwrap() {
                ("uri", uri) => SanType::URI(uri.try_into().unwrap()),
                (_, name) => SanType::DnsName(name.try_into().unwrap()),
            })
            .collect();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let name = ClientName::of(certificate.der(), kinds, &Trust::new())?;
        name.current().map(str::to_owned)
    }

    /// Guards: the first configured kind that a certificate has gives the name, and one that cannot be used gives none,
    /// also no other. A certificate with several SPIFFE ids has no name.
    #[test]
    fn certificates_name_clients() {
        use NameKind::{CommonName, Dns, Uri};
        let all = NameKind::ALL.map(|(_, kind)| kind);
        let (one, two) = ("uri=spiffe://a.example/ns/x", "uri=spiffe://a.example/ns/y");
        for (alternative, kinds, expected) in [
            (
                &[one, "dns=Host.example"][..],
                &all[..],
                Some("spiffe://a.example/ns/x"),
            ),
            (
                &[one, "dns=Host.example"],
                &[Dns, Uri],
                Some("host.example"),
            ),
            (&["dns=host.example"], &all, Some("host.example")),
            (&[], &all, Some("cn")),
            (&[one, "dns=host.example"], &[CommonName], Some("cn")),
            (&["dns=host.example"], &[Uri], None),
            (&[one, two], &all, None),
            (&[one, "uri=https://a.example/"], &all, None),
            (&["uri=SPIFFE://a.example/ns/x", "dns=a"], &all, None),
            (&["uri=spiffe://a.example", "dns=a"], &all, None),
            (&["uri=https://a.example/b c"], &all, None),
            (
                &["uri=https://a.example/b"],
                &all,
                Some("https://a.example/b"),
            ),
        ] {
            assert_eq!(
                named(alternative, kinds).as_deref(),
                expected,
                "{alternative:?}"
            );
        }
    }

    /// Guards: a name ends with its certificate.
    #[test]
    fn names_end_with_their_certificates() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "cn");
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let name = ClientName::of(certificate.der(), &[NameKind::CommonName], &Trust::new());
        assert_eq!(name.unwrap().current(), None);
    }

    /// Guards: the syntax of URIs and of SPIFFE ids.
    #[test]
    fn uris_are_checked() {
        let long = format!("spiffe://a/{}", "x".repeat(NAME_BYTES_MAX));
        for invalid in [
            "",
            "a",
            ":",
            "1a:b",
            "a:",
            "urn:a\nb",
            "spiffe://",
            "spiffe:///x",
            "spiffe://A/x",
            "spiffe://a/",
            "spiffe://a/x/",
            "spiffe://a//x",
            "spiffe://a/../x",
            "spiffe://a/x?y",
            "spiffe://u@a/x",
            "spiffe://a:1/x",
            "https://a/?b#c",
            &long,
        ] {
            assert!(invalid.parse::<ClientUri>().is_err(), "{invalid}");
        }
        for valid in ["urn:uuid:1", "spiffe://a.b-c_1/X.y/-_z", "https://a/?b"] {
            assert_eq!(valid.parse::<ClientUri>().unwrap().to_string(), valid);
        }
    }
}
