//! The sources of certificates.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::acme::AcmeOptions;
use super::client_certificates::ClientCertificates;
use super::server::{ServerTls, TlsOptions};
use super::source::{OwnAuthority, TlsSource};

fn own(directory: &Path, hosts: &[&str]) -> TlsSource {
    TlsSource::Own(OwnAuthority {
        directory: directory.to_path_buf(),
        hosts: hosts.iter().map(ToString::to_string).collect(),
    })
}

fn open(source: TlsSource) -> Result<ServerTls, String> {
    ServerTls::open(source, TlsOptions::default()).map_err(|error| error.to_string())
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Guards: an own authority is made once and stays, with keys that only their owner can read. Its server's certificate
/// is made again for other hosts and for a key that is not its own, and else stays.
#[test]
fn an_own_authority_stays() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("tls");
    let (authority, server) = (at.join("ca.pem"), at.join("server.pem"));
    open(own(&at, &["a.example", "10.0.0.7"])).unwrap();
    let (first_authority, first) = (read(&authority), read(&server));
    for (name, mode) in [("ca.key", 0o600), ("server.key", 0o600), ("ca.pem", 0o644)] {
        let found = std::fs::metadata(at.join(name)).unwrap().permissions();
        assert_eq!(found.mode() & 0o777, mode, "{name}");
    }
    let again = open(own(&at, &["10.0.0.7", "a.example"])).unwrap();
    assert!(!again.renew().unwrap());
    assert_eq!(read(&server), first);
    open(own(&at, &["a.example"])).unwrap();
    let second = read(&server);
    assert_ne!(second, first);
    // As after a stop between the two files.
    std::fs::write(&server, first).unwrap();
    open(own(&at, &["a.example"])).unwrap();
    assert_ne!(read(&server), second);
    std::fs::remove_file(at.join("server.key")).unwrap();
    open(own(&at, &["a.example"])).unwrap();
    assert_eq!(read(&authority), first_authority);

    // A key of another authority, as after a mixed restore.
    let other = directory.path().join("other");
    open(own(&other, &["a.example"])).unwrap();
    let key = read(&at.join("ca.key"));
    std::fs::copy(other.join("ca.key"), at.join("ca.key")).unwrap();
    let error = open(own(&at, &["a.example"])).unwrap_err();
    assert!(
        error.contains("ca.key") && error.contains("not the key of"),
        "{error}"
    );
    std::fs::write(at.join("ca.key"), key).unwrap();

    // Clients trust the authority, so another one is never made silently.
    std::fs::remove_file(at.join("ca.key")).unwrap();
    let error = open(own(&at, &["a.example"])).unwrap_err();
    assert!(
        error.contains("ca.pem") && error.contains("ca.key, is missing"),
        "{error}"
    );
}

/// Guards: files are read again when they, or the folder that a link names, are replaced. What cannot be used is an
/// error that names the file, and the last good certificate stays.
#[test]
fn replaced_files_are_shown() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["one", "two"] {
        open(own(&at(name), &[name])).unwrap();
    }
    let link = |name: &str| {
        std::fs::remove_file(at("now")).unwrap_or_default();
        symlink(at(name), at("now")).unwrap();
    };
    link("one");
    let source = TlsSource::Files {
        certificate: at("now/server.pem"),
        key: at("now/server.key"),
    };
    let tls = open(source.clone()).unwrap();
    assert!(!tls.renew().unwrap());
    link("two");
    assert!(tls.renew().unwrap());
    assert!(!tls.renew().unwrap());

    std::fs::copy(at("one/server.key"), at("two/server.key")).unwrap();
    let error = tls.renew().unwrap_err().to_string();
    assert!(
        error.contains("server.key") && error.contains("not the key of"),
        "{error}"
    );
    std::fs::write(at("two/server.pem"), "no certificate").unwrap();
    let error = tls.renew().unwrap_err().to_string();
    assert!(
        error.contains("server.pem") && error.contains("no certificate in PEM"),
        "{error}"
    );
    std::fs::remove_file(at("two/server.pem")).unwrap();
    let error = open(source).unwrap_err();
    assert!(
        error.contains("cannot read") && error.contains("server.pem"),
        "{error}"
    );
    assert!(tls.expires_unix_s() > 0);
    link("one");
    assert!(tls.renew().unwrap());
}

/// Guards: a certificate of an authority that is in the file is shown in place of one that ends earlier. No file, and a
/// broken one, change nothing.
#[test]
fn fetched_certificates_are_shown() {
    let directory = tempfile::tempdir().unwrap();
    let acme = AcmeOptions {
        directory: directory.path().to_path_buf(),
        names: vec!["a.example".to_owned()],
        url: "https://authority.example".to_owned(),
        authorities: None,
        contact: None,
    };
    let path = acme.certificate_path();
    let tls = open(TlsSource::Acme(acme)).unwrap();
    let before = tls.expires_unix_s();
    assert!(!tls.renew().unwrap());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = |year| {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let pem = key.serialize_pem() + &params.self_signed(&key).unwrap().pem();
        std::fs::write(&path, pem).unwrap();
    };
    // The placeholder is replaced whatever the clock says.
    for (year, is_shown) in [(2000, true), (1999, false), (2001, true)] {
        write(year);
        assert_eq!(tls.renew().unwrap(), is_shown, "{year}");
        assert!(tls.expires_unix_s() < before);
    }
    std::fs::write(&path, "nothing").unwrap();
    tls.renew().unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert!(!tls.renew().unwrap());
    assert!(tls.expires_unix_s() < before);
}

/// Guards: the authorities of clients are read again when their file changes. One that cannot be used is an error that
/// names the file, also at the start, and the last good authorities stay.
#[test]
fn replaced_authorities_are_used() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    open(own(&at("own"), &["a.example"])).unwrap();
    let source = || own(&at("own"), &["a.example"]);
    let options = || TlsOptions {
        clients: Some(ClientCertificates {
            authorities: at("clients.pem"),
            names: Vec::new(),
        }),
        ..TlsOptions::default()
    };
    let error = ServerTls::open(source(), options()).unwrap_err();
    assert!(error.to_string().contains("clients.pem"), "{error}");
    std::fs::copy(at("own/ca.pem"), at("clients.pem")).unwrap();
    let tls = ServerTls::open(source(), options()).unwrap();
    assert!(!tls.renew_authorities().unwrap());
    let before = tls.config();
    std::fs::write(at("clients.pem"), "nothing").unwrap();
    let error = tls.renew_authorities().unwrap_err().to_string();
    assert!(
        error.contains("clients.pem") && error.contains("no certificate in PEM"),
        "{error}"
    );
    assert!(std::sync::Arc::ptr_eq(&before, &tls.config()));
    open(own(&at("two"), &["a.example"])).unwrap();
    std::fs::copy(at("two/ca.pem"), at("clients.pem")).unwrap();
    assert!(tls.renew_authorities().unwrap());
    assert!(!std::sync::Arc::ptr_eq(&before, &tls.config()));
    assert!(!tls.renew_authorities().unwrap());
}
