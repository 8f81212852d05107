//! Clients that log in to a registry with TLS and access control, each with its own check of the certificate.
//!
//! Owns: the test of that for all clients, and the registry for it; `login_charts` and `login_containerd` have the
//! parts of helm and of containerd. Refuses: any option that makes a client trust everything.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tonnage_tests::process::{Server, folder, program};

use crate::call::Call;
use crate::checks::write;
use crate::lane::Lane;
use crate::layout::{Layers, write_image};
use crate::login_certificate;
use crate::program::Client;

pub const USER: &str = "alice";
pub const PASSWORD: &str = "correct horse";
/// A robot account, and the user of a workload.
const ROBOT: &str = "robot";
const WORKLOAD: &str = "workload";
/// The name in the certificate of a client.
pub const CERTIFIED: &str = "client.example";

/// A way to log in.
#[derive(Debug, Clone)]
pub struct Way {
    /// What is given as the password.
    pub name: &'static str,
    pub user: String,
    pub secret: String,
}

/// A registry with access control, and what clients need for it.
pub struct Guarded {
    pub lane: Lane,
    pub folder: tempfile::TempDir,
    pub server: Server,
    pub way: Way,
    /// Other ways to log in.
    others: Vec<Way>,
}

/// Guards: every client logs in, pushes and pulls by TLS, and verifies the certificate: without the authority it
/// refuses. A wrong password is refused. What anyone may pull needs no login. An API key and the token of a workload
/// are passwords, too, and a certificate takes their place.
pub fn over_tls(lane: &Lane) -> Result<(), String> {
    let mut guarded = Guarded::start(lane, &["--tls", "self"])?;
    for (client, test) in [
        (
            Client::Skopeo,
            Guarded::skopeo as fn(&Guarded) -> Result<(), String>,
        ),
        (Client::Podman, Guarded::podman),
        (Client::Crane, Guarded::crane),
        (Client::Oras, Guarded::oras),
        (Client::Regctl, Guarded::regctl),
        (Client::Helm, Guarded::helm),
        (Client::Ctr, Guarded::containerd),
    ] {
        if !lane.has(client, "login by TLS")? {
            continue;
        }
        test(&guarded)?;
        for _ in 0..guarded.others.len() {
            let next = guarded.others.remove(0);
            let last = std::mem::replace(&mut guarded.way, next);
            guarded.others.push(last);
            test(&guarded)?;
        }
        // The first way again.
        let first = guarded.others.remove(0);
        let last = std::mem::replace(&mut guarded.way, first);
        guarded.others.push(last);
    }
    guarded.by_certificate()
}

/// Returns the rules: who anyone may pull what is below `open`; what is below the name of a way only its users may.
fn rules(keys: &Path) -> String {
    let rule = |pattern: &str, pull: &str, users: &str| {
        format!(
            "[[rule]]\nrepositories = '{pattern}'\npull = [{pull}]\noverwrite = [{users}]\ndelete = [{users}]\n"
        )
    };
    let users = format!("'{USER}', '{ROBOT}', '{WORKLOAD}', '{CERTIFIED}'");
    format!(
        "{}{}[[issuer]]\nurl = 'https://issuer.example'\naudience = 'registry.example'\nkeys = '{}'\n\
         [[issuer.user]]\nname = '{WORKLOAD}'\nclaims = {{ sub = 'job' }}\n",
        rule("open/*", "'anyone'", &users),
        rule("closed/*", "", &users),
        keys.display()
    )
}

/// Returns the token of a workload, and writes the key with which it is verified.
fn workload_token(keys: &Path) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("make a token: {error}");
    let pair = rcgen::KeyPair::generate().map_err(|e| failed(&e))?;
    let key = jsonwebtoken::EncodingKey::from_ec_der(&pair.serialize_der());
    let algorithm = jsonwebtoken::Algorithm::ES256;
    let public = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm);
    let public = public.map_err(|e| failed(&e))?;
    write(keys, serde_json::json!({ "keys": [public] }).to_string())?;
    let claims = serde_json::json!({
        "iss": "https://issuer.example", "aud": "registry.example", "sub": "job",
        "exp": jsonwebtoken::get_current_timestamp() + 3600,
    });
    let header = jsonwebtoken::Header::new(algorithm);
    jsonwebtoken::encode(&header, &claims, &key).map_err(|e| failed(&e))
}

impl Guarded {
    /// Starts a registry with one user and with rules. `encryption` are its options for TLS.
    pub fn start(lane: &Lane, encryption: &[&str]) -> Result<Self, String> {
        let folder = folder()?;
        let at = |name: &str| folder.path().join(name);
        let data = at("data");
        write(&at("password"), PASSWORD)?;
        write(&at("rules.toml"), rules(&at("keys.json")))?;
        let token = workload_token(&at("keys.json"))?;
        let password = fs::File::open(at("password")).map_err(|e| format!("open: {e}"))?;
        let added = Command::new(program()?)
            .args(["user", "add", USER, "--password-stdin", "--data"])
            .arg(&data)
            .stdin(password)
            .stdout(Stdio::null())
            .status();
        if !added.map_err(|e| format!("run: {e}"))?.success() {
            return Err("the user was not added".to_owned());
        }
        let made = Command::new(program()?)
            .args(["key", "create", ROBOT, "--robot", "--data"])
            .arg(&data)
            .output();
        let made = made.map_err(|e| format!("run: {e}"))?;
        let key = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let way = |name, user: &str, secret: &str| Way {
            name,
            user: user.to_owned(),
            secret: secret.to_owned(),
        };
        let rules = at("rules.toml").display().to_string();
        login_certificate::make(folder.path())?;
        let clients = at("client/clients.pem").display().to_string();
        let clients = ["--tls-client-ca", &clients];
        let clients = if encryption.is_empty() {
            &[][..]
        } else {
            &clients
        };
        let options = [encryption, clients, &["--auth", "--auth-rules", &rules]].concat();
        let options = options.into_iter().map(str::to_owned).collect();
        let server = Server::start_as(&data, &at("log"), &[], options)?;
        if !encryption.is_empty() {
            fs::create_dir(at("certs")).map_err(|e| format!("create: {e}"))?;
            let authority = data.join("tls/ca.pem");
            fs::copy(authority, at("certs/ca.crt")).map_err(|e| format!("copy: {e}"))?;
        }
        write_image(&lane.programs, &at("source"), Layers::Compressed)?;
        Ok(Self {
            lane: lane.clone(),
            folder,
            server,
            way: way("a password", USER, PASSWORD),
            others: vec![
                way("an API key", ROBOT, &key),
                way("a workload's token", "oidc", &token),
            ],
        })
    }

    /// Returns whether mistakes, and requests without a login, are tested, too.
    pub fn is_first(&self) -> bool {
        self.way.user == USER
    }

    /// Returns the name of an operation with the way to log in.
    pub fn with_way(&self, operation: &str) -> String {
        format!("{operation} with {}", self.way.name)
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Returns the place of the registry, or of an image in it.
    pub fn place(&self) -> String {
        self.server.address().to_string()
    }

    /// Returns an image: one that anyone may pull for the first way, and else one that only who logs in may pull.
    pub fn image(&self, client: Client) -> String {
        let repository = self.repository();
        format!("{}/{repository}/{}:v1", self.place(), client.name())
    }

    /// Returns the name of the pull: without a login for the first way, and else with it.
    pub fn pull_name(&self) -> String {
        if self.is_first() {
            "pull by TLS without a login".to_owned()
        } else {
            self.with_way("pull by TLS")
        }
    }

    pub fn repository(&self) -> &'static str {
        if self.is_first() { "open" } else { "closed" }
    }

    pub fn run(
        &self,
        client: Client,
        operation: &str,
        with: impl FnOnce(Call) -> Call,
    ) -> Result<(), String> {
        self.lane.run(client, operation, with).map(drop)
    }

    /// Checks that a client refuses, with the first way to log in.
    pub fn refuses(
        &self,
        client: Client,
        operation: &str,
        with: impl FnOnce(Call) -> Call,
    ) -> Result<(), String> {
        if !self.is_first() {
            return Ok(());
        }
        self.lane.step(client, operation, || {
            match with(self.lane.programs.call(client)?).run() {
                Ok(said) => Err(format!("it was accepted: {said}")),
                Err(_) => Ok(()),
            }
        })
    }

    fn skopeo(&self) -> Result<(), String> {
        let (certs, image) = (
            self.path("certs"),
            format!("docker://{}", self.image(Client::Skopeo)),
        );
        let source = format!("oci:{}:v1", self.path("source"));
        let push = |call: Call, certs: &str, password: &str| {
            let credentials = format!("{}:{password}", self.way.user);
            let call = call.args([
                "copy",
                "--dest-cert-dir",
                certs,
                "--dest-creds",
                &credentials,
            ]);
            call.args([&source, &image])
        };
        let none = self.path("none");
        self.refuses(
            Client::Skopeo,
            "push by TLS without the authority",
            |call| push(call, &none, &self.way.secret),
        )?;
        self.refuses(
            Client::Skopeo,
            "push by TLS with a wrong password",
            |call| push(call, &certs, "wrong"),
        )?;
        self.run(Client::Skopeo, &self.with_way("push by TLS"), |call| {
            push(call, &certs, &self.way.secret)
        })?;
        let out = format!("dir:{}", self.path("skopeo-out"));
        let credentials = format!("{}:{}", self.way.user, self.way.secret);
        self.run(Client::Skopeo, &self.pull_name(), |call| {
            let call = call.args(["copy", "--src-cert-dir", &certs]);
            let call = if self.is_first() {
                call.arg("--src-no-creds")
            } else {
                call.args(["--src-creds", &credentials])
            };
            call.args([&image, &out])
        })?;
        self.run(Client::Skopeo, &self.with_way("delete by TLS"), |call| {
            call.args([
                "delete",
                "--cert-dir",
                &certs,
                "--creds",
                &credentials,
                &image,
            ])
        })
    }

    fn podman(&self) -> Result<(), String> {
        let (certs, place, image) = (self.path("certs"), self.place(), self.image(Client::Podman));
        let (good, wrong) = (self.path("secret"), self.path("wrong"));
        write(Path::new(&good), &self.way.secret)?;
        write(Path::new(&wrong), "wrong")?;
        let keys = self.path("podman-auth.json");
        let log_in = |password: &str| {
            let call = self.lane.programs.call(Client::Podman)?;
            let call = call.args([
                "login",
                "--cert-dir",
                &certs,
                "--authfile",
                &keys,
                "-u",
                &self.way.user,
            ]);
            call.args(["--password-stdin", &place])
                .input(Path::new(password))
        };
        if self.is_first() {
            let operation = "log in by TLS with a wrong password";
            self.lane.step(Client::Podman, operation, || {
                log_in(&wrong)?
                    .run()
                    .map_or(Ok(()), |said| Err(format!("it was accepted: {said}")))
            })?;
        }
        let operation = self.with_way("log in by TLS");
        self.lane.step(Client::Podman, &operation, || {
            log_in(&good)?.run().map(drop)
        })?;
        let context = self.folder.path().join("context");
        fs::create_dir_all(&context).map_err(|e| format!("create: {e}"))?;
        write(
            &context.join("Containerfile"),
            "FROM scratch\nCOPY Containerfile /\n",
        )?;
        let build = self.run(Client::Podman, "build from scratch", |call| {
            let call = call.args(["build", "--isolation=chroot", "-t", &image, "."]);
            call.folder(&context)
        });
        if let Err(why) = build {
            let why = format!("cannot build on this machine: {why}");
            return self.lane.skip(Client::Podman, "push by TLS", &why);
        }
        self.run(Client::Podman, &self.with_way("push by TLS"), |call| {
            let call = call.args(["push", "--cert-dir", &certs, "--authfile", &keys]);
            call.arg(&image)
        })?;
        let log_out = || {
            self.run(Client::Podman, "log out", |call| {
                call.args(["logout", "--authfile", &keys, &place])
            })
        };
        if self.is_first() {
            log_out()?;
        }
        self.run(Client::Podman, &self.pull_name(), |call| {
            let policy = self.lane.programs.policy().display().to_string();
            let call = call.args(["pull", "--signature-policy", &policy]);
            call.args(["--cert-dir", &certs, "--authfile", &keys, &image])
        })?;
        if self.is_first() { Ok(()) } else { log_out() }
    }

    fn crane(&self) -> Result<(), String> {
        let (authority, place, image) = (
            self.path("certs/ca.crt"),
            self.place(),
            self.image(Client::Crane),
        );
        let (source, out) = (self.path("source"), self.path("crane.tar"));
        let log_in = |call: Call, password: &str| {
            let call = call.env("SSL_CERT_FILE", &authority);
            call.args([
                "auth",
                "login",
                "-u",
                &self.way.user,
                "-p",
                password,
                &place,
            ])
        };
        // It does not ask the registry.
        self.run(Client::Crane, &self.with_way("log in by TLS"), |call| {
            log_in(call, "wrong")
        })?;
        self.refuses(Client::Crane, "push by TLS with a wrong password", |call| {
            call.env("SSL_CERT_FILE", &authority)
                .args(["push", &source, &image])
        })?;
        self.run(Client::Crane, &self.with_way("log in by TLS"), |call| {
            log_in(call, &self.way.secret)
        })?;
        self.refuses(Client::Crane, "push by TLS without the authority", |call| {
            call.args(["push", &source, &image])
        })?;
        self.run(Client::Crane, &self.with_way("push by TLS"), |call| {
            call.env("SSL_CERT_FILE", &authority)
                .args(["push", &source, &image])
        })?;
        let log_out = || {
            self.run(Client::Crane, "log out", |call| {
                call.args(["auth", "logout", &place])
            })
        };
        if self.is_first() {
            log_out()?;
        }
        self.run(Client::Crane, &self.pull_name(), |call| {
            call.env("SSL_CERT_FILE", &authority)
                .args(["pull", &image, &out])
        })?;
        if self.is_first() { Ok(()) } else { log_out() }
    }

    fn oras(&self) -> Result<(), String> {
        let (authority, place, image) = (
            self.path("certs/ca.crt"),
            self.place(),
            self.image(Client::Oras),
        );
        let log_in = |call: Call, password: &str| {
            call.args([
                "login",
                "--ca-file",
                &authority,
                "-u",
                &self.way.user,
                "-p",
                password,
                &place,
            ])
        };
        self.refuses(
            Client::Oras,
            "log in by TLS with a wrong password",
            |call| log_in(call, "wrong"),
        )?;
        self.run(Client::Oras, &self.with_way("log in by TLS"), |call| {
            log_in(call, &self.way.secret)
        })?;
        write(&self.folder.path().join("a.txt"), "a file")?;
        let push = |call: Call| call.folder(self.folder.path()).arg("push");
        self.refuses(Client::Oras, "push by TLS without the authority", |call| {
            push(call).args([&image, "a.txt:text/plain"])
        })?;
        self.run(Client::Oras, &self.with_way("push by TLS"), |call| {
            push(call).args(["--ca-file", &authority, &image, "a.txt:text/plain"])
        })?;
        let log_out = || {
            self.run(Client::Oras, "log out", |call| {
                call.args(["logout", &place])
            })
        };
        if self.is_first() {
            log_out()?;
        }
        self.run(Client::Oras, &self.pull_name(), |call| {
            let call = call.args([
                "pull",
                "--ca-file",
                &authority,
                "--output",
                &self.path("oras-out"),
            ]);
            call.arg(&image)
        })?;
        if self.is_first() { Ok(()) } else { log_out() }
    }

    fn regctl(&self) -> Result<(), String> {
        let (authority, place, image) = (
            self.path("certs/ca.crt"),
            self.place(),
            self.image(Client::Regctl),
        );
        let authority = fs::read_to_string(authority).map_err(|e| format!("read: {e}"))?;
        let source = format!("ocidir://{}:v1", self.path("source"));
        self.refuses(
            Client::Regctl,
            "push by TLS without the authority",
            |call| call.args(["image", "copy", &source, &image]),
        )?;
        self.run(Client::Regctl, "trust the authority", |call| {
            call.args([
                "registry",
                "set",
                &place,
                "--skip-check",
                "--cacert",
                &authority,
            ])
        })?;
        let log_in = |call: Call, password: &str| {
            let call = call.args(["registry", "login", &place]);
            call.args(["-u", &self.way.user, "-p", password])
        };
        self.refuses(
            Client::Regctl,
            "log in by TLS with a wrong password",
            |call| log_in(call, "wrong"),
        )?;
        self.run(Client::Regctl, &self.with_way("log in by TLS"), |call| {
            log_in(call, &self.way.secret)
        })?;
        self.run(Client::Regctl, &self.with_way("push by TLS"), |call| {
            call.args(["image", "copy", &source, &image])
        })?;
        let log_out = || {
            self.run(Client::Regctl, "log out", |call| {
                call.args(["registry", "logout", &place])
            })
        };
        if self.is_first() {
            log_out()?;
        }
        self.run(Client::Regctl, &self.pull_name(), |call| {
            let out = format!("ocidir://{}:v1", self.path("regctl-out"));
            call.args(["image", "copy", &image, &out])
        })?;
        if self.is_first() { Ok(()) } else { log_out() }
    }
}
