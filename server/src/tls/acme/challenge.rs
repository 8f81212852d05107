//! Certificates by which the authority verifies names (TLS-ALPN-01, RFC 8737; of addresses, RFC 8738).
//!
//! Owns: [`Challenges`]. Invariant: a challenge is shown only while its order runs, and only to a client that speaks
//! nothing but [`PROTOCOL`], over which no request is answered.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

use super::super::error::TlsError;

/// The protocol of the handshake in which the authority verifies a name.
pub(in crate::tls) const PROTOCOL: &[u8] = b"acme-tls/1";

/// The certificates to show now, by the name that the client asks for.
#[derive(Debug, Default)]
pub(in crate::tls) struct Challenges(Mutex<BTreeMap<String, Arc<CertifiedKey>>>);

/// A challenge, which is shown until this drops.
#[derive(Debug)]
pub(super) struct ShownChallenge {
    challenges: Arc<Challenges>,
    server_name: String,
}

impl Challenges {
    /// Returns whether a client wants to verify a name, and nothing else.
    pub(in crate::tls) fn is_asked_for(hello: &ClientHello<'_>) -> bool {
        let Some(mut protocols) = hello.alpn() else {
            return false;
        };
        protocols.next() == Some(PROTOCOL) && protocols.next().is_none()
    }

    /// Returns the certificate for a client that verifies a name; `None` if that is not being verified.
    pub(in crate::tls) fn find(&self, server_name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = server_name?.to_ascii_lowercase();
        self.0.lock().get(&name).cloned()
    }

    /// Shows the proof for a name or address from now on. `digest` is the SHA-256 of the key authorization.
    pub(super) fn show(
        self: &Arc<Self>,
        name: &str,
        digest: &[u8; 32],
        provider: &CryptoProvider,
    ) -> Result<ShownChallenge, TlsError> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        // Without its check of the pair, which rejects the critical extension of a proof.
        let key = provider.key_provider.load_private_key(key)?;
        let certified = CertifiedKey::new(vec![certificate], key);
        let server_name = server_name(name);
        self.0
            .lock()
            .insert(server_name.clone(), Arc::new(certified));
        Ok(ShownChallenge {
            challenges: Arc::clone(self),
            server_name,
        })
    }
}

impl Drop for ShownChallenge {
    fn drop(&mut self) {
        self.challenges.0.lock().remove(&self.server_name);
    }
}

/// Returns the name in the handshake by which a name or address is verified (RFC 8738 section 6).
fn server_name(name: &str) -> String {
    match name.parse() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => {
            let digits = format!("{:032x}", u128::from(address));
            let digits: Vec<_> = digits.chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa", digits.join("."))
        }
        Err(_) => name.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: addresses are verified under their names for reverse resolution (RFC 8738 section 6), and a challenge
    /// is found, in any case of letters, only while it is shown.
    #[test]
    fn challenges_are_found_by_name() {
        let challenges = Arc::new(Challenges::default());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        for (name, expected) in [
            ("Registry.example", "registry.EXAMPLE"),
            ("192.0.2.34", "34.2.0.192.in-addr.arpa"),
            (
                "2001:db8::1",
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            ),
        ] {
            let shown = challenges.show(name, &[7; 32], &provider).unwrap();
            assert!(challenges.find(Some(expected)).is_some(), "{name}");
            assert!(challenges.find(None).is_none());
            drop(shown);
            assert!(challenges.find(Some(expected)).is_none(), "{name}");
        }
    }
}
