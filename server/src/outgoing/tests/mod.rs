//! The client of other registries against servers by a script.

pub(crate) mod peer;

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonnage_engine::{Algorithm, Digest};

use super::*;

/// An authority, and the certificate that it gave to 127.0.0.1, made by openssl. They are valid for 100 years.
const AUTHORITY: &str = include_str!("ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("server.pem");
const KEY: &[u8] = include_bytes!("server.key");

fn wanted() -> Wanted {
    Wanted {
        repository: "a".to_owned(),
        digest: Digest::of(Algorithm::Sha256, b"content"),
        kind: ContentKind::Blob,
    }
}

/// Serves `connections` connections by TLS, each with the same answer. Returns the port.
fn serve_tls(connections: usize) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let config = config.with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(tls, stream.unwrap());
            let mut head = [0; 4096];
            // A client that does not trust this server ends here.
            if stream.read(&mut head).is_ok_and(|read| read > 0) {
                stream.write_all(&peer::whole(b"content")).unwrap();
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
        }
    });
    port
}

/// Guards: a certificate must be from a trusted authority and for the host of the registry; the authority that an
/// operator names is trusted, and a text without a certificate is rejected.
#[tokio::test]
async fn certificates_are_verified() {
    let port = serve_tls(3);
    let fetch = async |host: &str, authorities: Option<&str>| {
        let address = format!("https://{host}:{port}").parse().unwrap();
        let client = RegistryClient::new(address, None, authorities.map(str::to_owned));
        let content = client.await.unwrap().fetch(wanted()).await?;
        content.bytes.try_collect::<Vec<_>>().await
    };
    let unknown = fetch("127.0.0.1", None).await.unwrap_err();
    assert!(unknown.to_string().contains("UnknownIssuer"), "{unknown}");
    let other = fetch("localhost", Some(AUTHORITY)).await.unwrap_err();
    assert!(other.to_string().contains("certificate"), "{other}");
    let content = fetch("127.0.0.1", Some(AUTHORITY)).await.unwrap();
    assert_eq!(content.concat(), b"content");
    let none = RegistryClient::new("https://h".parse().unwrap(), None, Some("x".to_owned()));
    assert!(matches!(none.await, Err(TlsError::Authority(_))));
}

/// Guards: the bytes that must arrive in a period may come at any rate within it; a body that stops after them is too
/// slow in the next period.
#[tokio::test]
async fn slow_bodies_end() {
    let script = |_: &str| {
        let body = peer::response(200, "Content-Length: 100\r\n", &[7; 60]);
        (body, peer::After::Stall)
    };
    let peer = peer::ScriptedPeer::start(Arc::new(script)).await;
    let limits = PeerLimits {
        period: Duration::from_millis(50),
        bytes_per_period: 40,
        ..PeerLimits::default()
    };
    let address = format!("http://127.0.0.1:{}", peer.port).parse().unwrap();
    let client = RegistryClient::with_limits(address, None, None, limits)
        .await
        .unwrap();
    let mut content = client.fetch(wanted()).await.unwrap();
    assert_eq!(content.length, Some(100));
    let mut received = 0;
    let error = loop {
        match content.bytes.try_next().await {
            Ok(piece) => received += piece.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert_eq!((received, error), (60, PeerError::TooSlow));
}
