//! Certificates that are fetched from an authority: pebble, the test server of Let's Encrypt.
//!
//! Owns: starting pebble. It is found at run time; `TONNAGE_TEST_CLIENTS=require` makes a missing one a failure.

use std::fs;
use std::io::BufRead as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::json;
use tempfile::TempDir;
use tonnage_server::tls::client_config;
use tonnage_tests::say;

use crate::serving::{Serving, get, run, send_over, tonnage};
use crate::tls::smoke;

/// Longer than this nothing here takes.
const HANG: Duration = Duration::from_secs(60);
const FETCHED: &str = "new connections get another certificate";
const FAILED: &str = "no certificate could be fetched";

/// The authority, and the port under which it verifies names.
struct Pebble {
    child: Child,
    folder: TempDir,
    directory: String,
    port: u16,
    management: u16,
    verified_port: u16,
}

impl Pebble {
    /// Starts it; `None` if it is not installed.
    fn start() -> Option<Self> {
        if let Err(error) = Command::new("pebble").arg("-h").output() {
            say::skipped(
                "fetching certificates",
                &format!("pebble cannot be run: {error}"),
            );
            assert!(
                !say::required("TONNAGE_TEST_CLIENTS"),
                "pebble is required: {error}"
            );
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        fs::write(at("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(authority, key);
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        fs::write(
            at("cert.pem"),
            server.signed_by(&key, &issuer).unwrap().pem(),
        )
        .unwrap();
        fs::write(at("key.pem"), key.serialize_pem()).unwrap();
        let [port, management, verified_port] = [(); 3].map(|()| port());
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": at("cert.pem"),
            "privateKey": at("key.pem"),
            "httpPort": verified_port,
            "tlsPort": verified_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        fs::write(at("config.json"), config.to_string()).unwrap();
        fs::write(at("log"), "").unwrap();
        Some(Self {
            child: Self::spawn(&folder, port),
            folder,
            directory: format!("https://127.0.0.1:{port}/dir"),
            port,
            management,
            verified_port,
        })
    }

    /// Runs it. Its log is continued.
    fn spawn(folder: &TempDir, port: u16) -> Child {
        let mut log = fs::OpenOptions::new();
        let log = log.append(true).open(folder.path().join("log")).unwrap();
        let child = Command::new("pebble")
            .args(["-strict", "-config"])
            .arg(folder.path().join("config.json"))
            // Without pauses before it connects, and without nonces that it rejects at random.
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .stdin(Stdio::null())
            .spawn();
        connect(port);
        child.unwrap()
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again. It has forgotten its accounts and its certificate.
    fn restart(&mut self) {
        self.stop();
        self.child = Self::spawn(&self.folder, self.port);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns how many certificates it has issued.
    fn issued(&self) -> usize {
        self.log().matches("Issued certificate").count()
    }

    /// Fetches the certificate that clients of its certificates trust. Returns its file.
    fn root(&self) -> PathBuf {
        let authority = fs::read_to_string(self.path("ca.pem")).unwrap();
        let config = Arc::new(client_config(Some(&authority), true).unwrap());
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(config, name).unwrap();
        let stream = StreamOwned::new(connection, connect(self.management));
        let head = "GET /roots/0 HTTP/1.1\r\nHost: 127.0.0.1";
        let (status, root) = send_over(stream, head, "text/plain", b"");
        assert_eq!(status, 200);
        fs::write(self.path("root.pem"), root).unwrap();
        self.path("root.pem")
    }

    /// Starts a registry that fetches its certificate here. It has the port under which its names are verified, unless
    /// `port` is another.
    fn serve(&self, data: &Path, port: u16, options: &[&str]) -> (Serving, String) {
        let admin = format!("127.0.0.1:{}", crate::acme::port());
        let listen = format!("127.0.0.1:{port}");
        let mut command = tonnage(&["serve", "--acme", "localhost,127.0.0.1"]);
        command.args(["--listen", &listen, "--admin-listen", &admin]);
        command.args(["--tls-acme-directory", &self.directory]);
        command.arg("--tls-acme-ca").arg(self.path("ca.pem"));
        command.args(options);
        let server = Serving::of(command.arg("--data").arg(data));
        (server, format!("http://{admin}"))
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

/// Returns a port on which nothing listens, below those that the system gives to clients.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 1000).unwrap() * 10;
    loop {
        let port = 20_000 + first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Connects to a program that starts.
fn connect(port: u16) -> TcpStream {
    let begin = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(begin.elapsed() < HANG, "port {port}: {error}"),
        }
        std::thread::yield_now();
    }
}

/// Waits for a line in the log of a server. Returns all lines until then.
fn wait(server: &mut Serving, expected: &str) -> String {
    let (found, waiting) = std::sync::mpsc::channel::<()>();
    let pid = server.child.id().to_string();
    // Ends the log of a server that says something else.
    std::thread::spawn(move || {
        if waiting.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
            drop(Command::new("kill").args(["-KILL", &pid]).status());
        }
    });
    let mut log = String::new();
    while !log.contains(expected) {
        let read = server.stderr.read_line(&mut log).unwrap();
        assert!(read > 0, "the server ended:\n{log}");
        let failed = log.contains(FAILED) && expected != FAILED;
        assert!(!failed, "{log}");
    }
    drop(found);
    log
}

fn stop(server: Serving) -> String {
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    log
}

/// Returns the only file of this name in the folder of the authority.
fn kept(data: &Path, name: &str) -> PathBuf {
    let mut folders = fs::read_dir(data.join("tls/acme")).unwrap();
    folders.next().unwrap().unwrap().path().join(name)
}

/// Replaces the certificate that is kept by one that ends soon. Returns the file with its authority: itself.
fn make_old(data: &Path) -> PathBuf {
    let path = kept(data, "certificate.pem");
    let mut params =
        CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let now = SystemTime::now();
    let day = Duration::from_hours(24);
    (params.not_before, params.not_after) = ((now - 80 * day).into(), (now + 5 * day).into());
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    fs::write(&path, format!("{}{pem}", key.serialize_pem())).unwrap();
    path
}

/// Guards: one option fetches a certificate that clients of the authority accept under every name, and that is kept
/// over restarts; users log in and push over it. One that ends soon is replaced, with another account if the authority
/// has forgotten the first. The files with keys can be read by their owner only.
#[test]
fn certificates_are_fetched() {
    let Some(mut pebble) = Pebble::start() else {
        return;
    };
    let data = pebble.path("data");
    let (mut server, _) = pebble.serve(&data, pebble.verified_port, &[]);
    assert!(
        server.banner.contains("connects to port 443 of each name"),
        "{}",
        server.banner
    );
    wait(&mut server, FETCHED);
    let root = pebble.root();
    let port = pebble.verified_port;
    let check = |authority: &Path| {
        for url in [
            format!("https://localhost:{port}"),
            format!("https://127.0.0.1:{port}"),
        ] {
            let (code, stdout, stderr) = smoke(&url, authority);
            assert_eq!(code, 0, "{url}: {stdout}{stderr}");
        }
    };
    check(&root);
    for name in ["account.json", "certificate.pem"] {
        let mode = fs::metadata(kept(&data, name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    stop(server);

    let (server, _) = pebble.serve(&data, port, &["--auth"]);
    let (_, password) = server.banner.split_once("with the password ").unwrap();
    let (password, _) = password.split_once('\n').unwrap();
    let url = format!("https://localhost:{port}");
    let mut login = tonnage(&["smoke", &url, "--size", "1 MiB", "--username", "admin"]);
    login.arg("--ca").arg(&root);
    let (code, stdout, stderr) = run(login.env("TONNAGE_SMOKE_PASSWORD", password.trim()));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let log = stop(server);
    assert!(!log.contains(FETCHED) && pebble.issued() == 1, "{log}");

    let accounts = |pebble: &Pebble| pebble.log().matches("sign-me-up").count();
    make_old(&data);
    let (mut server, _) = pebble.serve(&data, port, &[]);
    wait(&mut server, FETCHED);
    check(&root);
    stop(server);
    assert_eq!((pebble.issued(), accounts(&pebble)), (2, 1));

    pebble.restart();
    make_old(&data);
    let (mut server, _) = pebble.serve(&data, port, &[]);
    let log = wait(&mut server, FETCHED);
    assert!(log.contains("does not know the account"), "{log}");
    stop(server);
    assert_eq!((pebble.issued(), accounts(&pebble)), (3, 2));
}

/// Guards: a failure is logged with what to do, and counted; the server continues to serve with the certificate that it
/// has. After a failed order a restart waits before the next one.
#[test]
fn failures_to_fetch_are_reported() {
    let Some(mut pebble) = Pebble::start() else {
        return;
    };
    let data = pebble.path("data");
    let counted = |admin: &str| {
        let (_, metrics) = get(admin, "/metrics");
        let metrics = String::from_utf8(metrics).unwrap();
        assert!(
            metrics.contains("registry_tls_acme_failures_total 1"),
            "{metrics}"
        );
    };
    let (mut server, admin) = pebble.serve(&data, port(), &[]);
    let log = wait(&mut server, FAILED);
    assert!(
        log.contains("could not verify") && log.contains("port 443 of"),
        "{log}"
    );
    counted(&admin);
    let log = stop(server);
    assert!(!log.contains(FAILED), "{log}");
    let (mut server, _) = pebble.serve(&data, port(), &[]);
    wait(&mut server, "the next one waits");
    stop(server);

    fs::remove_file(kept(&data, "ordered")).unwrap();
    let old = make_old(&data);
    let port = port();
    pebble.stop();
    let (mut server, admin) = pebble.serve(&data, port, &[]);
    let log = wait(&mut server, FAILED);
    assert!(log.contains("the authority cannot be reached"), "{log}");
    counted(&admin);
    let (code, stdout, stderr) = smoke(&format!("https://localhost:{port}"), &old);
    assert_eq!(code, 0, "{stdout}{stderr}");
    stop(server);
}
