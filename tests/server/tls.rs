//! Encrypted connections.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonnage_engine::{Algorithm, Change};
use tonnage_server::tls::{
    AcmeOptions, AlpnPreference, OwnAuthority, ServerTls, TlsOptions, TlsSource, client_config,
    https_connector,
};
use tonnage_server::{Locations, ServerOptions};
use tonnage_tests::batch_of;
use tonnage_tests::registry::TestRegistry;

use crate::content;
use crate::unread::connect;

/// Longer than this nothing here takes.
const HANG: Duration = Duration::from_secs(30);

/// A registry with TLS. Its authority is in `directory`.
async fn start(
    directory: &Path,
    preference: AlpnPreference,
    options: ServerOptions,
) -> TestRegistry {
    let own = OwnAuthority {
        directory: directory.to_path_buf(),
        hosts: vec!["127.0.0.1".to_owned()],
    };
    let encryption = TlsOptions {
        preference,
        ..TlsOptions::default()
    };
    let tls = ServerTls::open(TlsSource::Own(own), encryption).expect("a certificate");
    let tls = Some(tls);
    TestRegistry::with(ServerOptions { tls, ..options }).await
}

/// Completes a handshake as a client that trusts the authority in `directory` and offers `protocols`.
async fn shake(directory: &Path, stream: TcpStream, protocols: &[&str]) -> TlsStream<TcpStream> {
    let shaken = try_shake(directory, stream, protocols).await;
    shaken.expect("a handshake")
}

async fn try_shake(
    directory: &Path,
    stream: TcpStream,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let authority = std::fs::read_to_string(directory.join("ca.pem")).unwrap();
    let mut config = client_config(Some(&authority), true).unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Guards: the protocol is the one that both sides prefer; without a choice of the client it is HTTP/1.1. Both are
/// served, and absolute locations have the right scheme.
#[tokio::test(flavor = "multi_thread")]
async fn protocols_are_negotiated() {
    use AlpnPreference::{Http1, Http2};
    for (preference, offered, expected) in [
        (Http2, &["http/1.1", "h2"][..], Some(&b"h2"[..])),
        (Http1, &["h2", "http/1.1"], Some(b"http/1.1")),
        (Http1, &["h2"], Some(b"h2")),
        (Http2, &[], None),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            locations: Locations::Request,
            ..ServerOptions::default()
        };
        let registry = start(directory.path(), preference, options).await;
        let stream = TcpStream::connect(registry.client().address())
            .await
            .unwrap();
        let stream = shake(directory.path(), stream, offered).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), expected);
        let io = hyper_util::rt::TokioIo::new(stream);
        let host = registry.client().address();
        let request = http::Request::post(format!("https://{host}/v2/a/blobs/uploads/"));
        let request = request.header("host", host.to_string());
        let request = request
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let answer = if expected == Some(b"h2") {
            let executor = hyper_util::rt::TokioExecutor::new();
            let shaken = hyper::client::conn::http2::handshake(executor, io).await;
            let (mut sender, connection) = shaken.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        assert_eq!(answer.status(), 202);
        let location = answer.headers()["location"].to_str().unwrap();
        assert!(
            location.starts_with(&format!("https://{host}/v2/a/")),
            "{location}"
        );
    }
}

/// Guards: plain HTTP to a port with TLS gets an answer that says so. Connections that never begin a handshake make
/// room for others.
#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        connections_max: 2,
        ..ServerOptions::default()
    };
    let registry = start(directory.path(), AlpnPreference::Http2, options).await;
    let address = registry.client().address();
    let silent = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(HANG, plain.read_to_string(&mut answer)).await;
    read.expect("an answer").unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"),
        "{answer}"
    );
    drop(silent);
}

/// Guards: an encrypted answer that its client leaves unread ends with its connection after the time for that.
#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_end() {
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        unread_timeout: Duration::from_millis(500),
        ..ServerOptions::default()
    };
    let registry = start(directory.path(), AlpnPreference::Http1, options).await;
    let content = Bytes::from(content(5, 8 << 20));
    let stored = registry.store.put_small(content, Algorithm::Sha256).await;
    let stored = stored.unwrap();
    let digest = stored.digest();
    let batch = batch_of("a", vec![stored], vec![Change::Link(digest)]);
    registry.store.commit(batch).await.unwrap();
    let stream = connect(&registry).await;
    let mut stream = shake(directory.path(), stream, &[]).await;
    let get = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let given_up = async {
        let counted = "registry_pull_total{kind=\"blob\",result=\"client\"} 1";
        loop {
            let answer = registry.admin().get("/metrics").await.expect(200);
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            if text.contains(counted) {
                // The scheduled end of the certificate is there, too.
                assert!(text.contains("registry_tls_certificate_expiry_timestamp_seconds 1"));
                return;
            }
        }
    };
    let ended = tokio::time::timeout(HANG, given_up).await;
    assert!(ended.is_ok(), "an unread answer was not aborted");
}

/// Guards: a client that does not trust the authority gets nothing, and one that does works with a usual client.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_verified() {
    let directory = tempfile::tempdir().unwrap();
    let registry = start(
        directory.path(),
        AlpnPreference::Http1,
        ServerOptions::default(),
    )
    .await;
    let uri: http::Uri = format!("https://{}/v2/", registry.client().address())
        .parse()
        .unwrap();
    let authority = std::fs::read_to_string(directory.path().join("ca.pem")).unwrap();
    for (authority, trusted) in [(Some(&*authority), true), (None, false)] {
        let config = client_config(authority, false).unwrap();
        let connector = https_connector(
            config,
            hyper_util::client::legacy::connect::HttpConnector::new(),
        );
        let executor = hyper_util::rt::TokioExecutor::new();
        let client = hyper_util::client::legacy::Client::builder(executor)
            .build::<_, http_body_util::Empty<bytes::Bytes>>(connector);
        assert_eq!(client.get(uri.clone()).await.is_ok(), trusted);
    }
}

/// Guards: a client that verifies a name for an authority (RFC 8737) gets no certificate but one for that, and no
/// answer to a request. Other clients get the usual certificate, whatever else they offer.
#[tokio::test(flavor = "multi_thread")]
async fn verifications_get_no_answers() {
    let directory = tempfile::tempdir().unwrap();
    let acme = AcmeOptions {
        directory: directory.path().to_path_buf(),
        names: vec!["127.0.0.1".to_owned()],
        // Nothing listens there.
        url: "https://127.0.0.1:1/".to_owned(),
        authorities: None,
        contact: None,
    };
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(acme.names.clone()).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().pem();
    let path = acme.certificate_path();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, key.serialize_pem() + &certificate).unwrap();
    // What `shake` trusts.
    std::fs::write(directory.path().join("ca.pem"), &certificate).unwrap();
    let tls = ServerTls::open(TlsSource::Acme(acme), TlsOptions::default()).unwrap();
    let registry = TestRegistry::with(ServerOptions {
        tls: Some(tls),
        ..ServerOptions::default()
    });
    let registry = registry.await;
    let get = |protocols: &'static [&'static str]| {
        let (address, at) = (registry.client().address(), directory.path());
        async move {
            let stream = TcpStream::connect(address).await?;
            let mut stream = try_shake(at, stream, protocols).await?;
            let get = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(get).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        }
    };
    for protocols in [
        &["http/1.1", "acme-tls/1"][..],
        &["acme-tls/1", "http/1.1"],
        &[],
    ] {
        let answer = get(protocols).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{protocols:?}");
    }
    // Nothing is being verified.
    let error = get(&["acme-tls/1"]).await.unwrap_err().to_string();
    assert!(error.contains("AccessDenied"), "{error}");
    // The end may come before the request is written.
    let answer = get(&["acme-tls/1", "other"]).await.unwrap_or_default();
    assert!(answer.is_empty());
}
