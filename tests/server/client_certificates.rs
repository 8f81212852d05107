//! Clients that show a certificate.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, HandshakeKind};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonnage_engine::{Algorithm, Change, Digest};
use tonnage_server::ServerOptions;
use tonnage_server::access::{AccessControl, AccessOptions, OwnUsers};
use tonnage_server::tls::{
    ClientCertificates, NameKind, OwnAuthority, ServerTls, TlsOptions, TlsSource, client_config,
};
use tonnage_tests::batch_of;
use tonnage_tests::registry::TestRegistry;

use crate::content;
use crate::guarded::NOTICED;

const APP: &str = "spiffe://cluster.example/ns/prod/sa/app";
const RULES: &str = "
    groups.apps = ['spiffe://cluster.example/ns/prod/sa/app']
    [[rule]]
    repositories = 'by-uri'
    pull = ['@apps']
    [[rule]]
    repositories = 'by-cn'
    pull = ['app']
    [[rule]]
    repositories = 'by-password'
    pull = ['alice']
";

/// An authority of clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// Makes the certificate of a client, with a common name and perhaps a URI. `year` is its last.
    fn issue(&self, common: &str, uri: Option<&str>, year: i32) -> Arc<SingleCertAndKey> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        let uri = uri.map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uri);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let chain = vec![certificate.der().clone()];
        Arc::new(
            CertifiedKey::from_der(chain, key, &provider)
                .unwrap()
                .into(),
        )
    }
}

/// A registry with access control that accepts certificates of clients.
struct Guarded {
    registry: TestRegistry,
    directory: TempDir,
    blob: Digest,
}

impl Guarded {
    async fn start(clients: &Authority) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("rules.toml"), RULES).unwrap();
        std::fs::write(at("clients.pem"), &clients.pem).unwrap();
        let own = OwnUsers::of(directory.path());
        own.add(&"alice".parse().unwrap(), "password", false)
            .unwrap();
        own.add(&"boss".parse().unwrap(), "password", true).unwrap();
        let control = AccessControl::open(&AccessOptions {
            own,
            htpasswd: None,
            rules: Some(at("rules.toml")),
        });
        let control = control.unwrap();
        let source = TlsSource::Own(OwnAuthority {
            directory: directory.path().to_path_buf(),
            hosts: vec!["127.0.0.1".to_owned()],
        });
        let clients = ClientCertificates {
            authorities: at("clients.pem"),
            names: NameKind::ALL.map(|(_, kind)| kind).into(),
        };
        let options = TlsOptions {
            clients: Some(clients),
            ..TlsOptions::default()
        };
        let registry = TestRegistry::with(ServerOptions {
            tls: Some(ServerTls::open(source, options).unwrap()),
            authenticator: control.authenticator(),
            policy: control.policy(),
            token_issuer: Some(control.token_issuer()),
            ..ServerOptions::default()
        });
        let registry = registry.await;
        let blob = Bytes::from(content(1, 100));
        let mut digest = None;
        for name in ["by-uri", "by-cn", "by-password"] {
            let stored = registry
                .store
                .put_small(blob.clone(), Algorithm::Sha256)
                .await;
            let stored = stored.unwrap();
            digest = Some(stored.digest());
            let link = vec![Change::Link(stored.digest())];
            registry
                .store
                .commit(batch_of(name, vec![stored], link))
                .await
                .unwrap();
        }
        Self {
            registry,
            directory,
            blob: digest.unwrap(),
        }
    }

    /// Returns the configuration of a client with a certificate, or without.
    fn client(&self, certificate: Option<&Arc<SingleCertAndKey>>) -> Arc<ClientConfig> {
        let authority = self.directory.path().join("ca.pem");
        let authority = std::fs::read_to_string(authority).unwrap();
        let mut config = client_config(Some(&authority), true).unwrap();
        if let Some(certificate) = certificate {
            config.client_auth_cert_resolver = Arc::clone(certificate) as _;
        }
        Arc::new(config)
    }

    /// Pulls the blob from a repository on a new connection. Returns the status, and whether a session was resumed.
    async fn pull(
        &self,
        client: &Arc<ClientConfig>,
        name: &str,
        authorization: &str,
    ) -> std::io::Result<(u16, bool)> {
        let path = format!("/v2/{name}/blobs/{}", self.blob);
        let (status, is_resumed, _) = self.get(client, &path, authorization).await?;
        Ok((status, is_resumed))
    }

    async fn get(
        &self,
        client: &Arc<ClientConfig>,
        path: &str,
        authorization: &str,
    ) -> std::io::Result<(u16, bool, String)> {
        let stream = TcpStream::connect(self.registry.client().address()).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = TlsConnector::from(Arc::clone(client));
        let mut stream = connector.connect(name, stream).await?;
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body = body.to_owned();
        Ok((status, kind == Some(HandshakeKind::Resumed), body))
    }
}

fn basic(password: &str) -> String {
    let encoded = STANDARD.encode(format!("alice:{password}"));
    format!("Authorization: Basic {encoded}\r\n")
}

/// Guards: the name in a certificate, or its URI, is the user of requests without credentials, with the rights of the
/// rules and of the list of users, also in a session that the client resumes. Credentials come before a certificate.
/// Without either, and with a name that cannot be used, a client is nobody.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_users() {
    let authority = Authority::new("one");
    let guarded = Guarded::start(&authority).await;
    let [app, cn, boss, invalid] = [
        ("other", Some(APP)),
        ("app", None),
        ("boss", None),
        ("app", Some("spiffe://cluster.example")),
    ]
    .map(|(common, uri)| authority.issue(common, uri, 4000));
    for (certificate, authorization, expected) in [
        (None, "", [401, 401, 401]),
        (Some(&app), "", [200, 403, 403]),
        (Some(&cn), "", [403, 200, 403]),
        (Some(&boss), "", [200, 200, 200]),
        (Some(&invalid), "", [401, 401, 401]),
        (Some(&app), &*basic("password"), [403, 403, 200]),
        (Some(&app), &*basic("wrong"), [401, 401, 401]),
        (None, &*basic("password"), [403, 403, 200]),
    ] {
        let client = guarded.client(certificate);
        let names = ["by-uri", "by-cn", "by-password"];
        for (index, (name, expected)) in names.into_iter().zip(expected).enumerate() {
            let pulled = guarded.pull(&client, name, authorization).await.unwrap();
            assert_eq!(pulled, (expected, index > 0), "{certificate:?} {name}");
        }
    }
    // They get tokens, which are worth the same without the certificate.
    let path = "/token?service=tonnage&offline_token=true&scope=repository:by-uri:pull";
    for certificate in [&app, &boss] {
        let client = guarded.client(Some(certificate));
        let (status, _, body) = guarded.get(&client, path, "").await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(status == 200 && answer["refresh_token"].is_null());
        let bearer = format!(
            "Authorization: Bearer {}\r\n",
            answer["token"].as_str().unwrap()
        );
        let without = guarded.client(None);
        for (name, expected) in [("by-uri", 200), ("by-cn", 401)] {
            let pulled = guarded.pull(&without, name, &bearer).await.unwrap().0;
            // Who has the right anyway gets another token.
            let expected = if std::ptr::eq(certificate, &app) && name == "by-cn" {
                403
            } else {
                expected
            };
            assert_eq!(pulled, expected, "{certificate:?} {name}");
        }
    }
}

/// Guards: a certificate of another authority, or one that has expired, ends the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_certificates_are_rejected() {
    let authority = Authority::new("one");
    let guarded = Guarded::start(&authority).await;
    for (certificate, expected) in [
        (Authority::new("two").issue("boss", None, 4000), "UnknownCA"),
        (authority.issue("boss", None, 2020), "CertificateExpired"),
    ] {
        let client = guarded.client(Some(&certificate));
        let error = guarded.pull(&client, "by-uri", "").await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// Guards: a client's name ends with its authority, also on a connection that is open. Another authority beside it
/// changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn names_end_with_their_authority() {
    let [authority, other] = ["one", "two"].map(Authority::new);
    let guarded = Guarded::start(&authority).await;
    let certificate = authority.issue("boss", None, 4000);
    let stream = TcpStream::connect(guarded.registry.client().address())
        .await
        .unwrap();
    let connector = TlsConnector::from(guarded.client(Some(&certificate)));
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let path = guarded.directory.path().join("clients.pem");
    let late = other.issue("boss", None, 4000);
    let both = format!("{}{}", authority.pem, other.pem);
    for (authorities, expected) in [(both, 200), (other.pem.clone(), 401)] {
        std::fs::write(&path, authorities).unwrap();
        let changed = async {
            // The other authority is known once the file was read.
            while guarded
                .pull(&guarded.client(Some(&late)), "by-cn", "")
                .await
                .is_err()
            {}
            let mut status = 0;
            while status != expected {
                stream
                    .write_all(b"HEAD /v2/by-cn/tags/list HTTP/1.1\r\nHost: x\r\n\r\n")
                    .await
                    .unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                status = String::from_utf8_lossy(&head)
                    .split(' ')
                    .nth(1)
                    .unwrap()
                    .parse()
                    .unwrap();
                assert!([200, expected].contains(&status));
            }
        };
        assert!(
            tokio::time::timeout(NOTICED, changed).await.is_ok(),
            "{expected}"
        );
    }
}
