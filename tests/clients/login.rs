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
use crate::program::Client;

pub const USER: &str = "alice";
pub const PASSWORD: &str = "correct horse";
/// Everyone may pull what is below `open`, and the user may push there.
const RULES: &str = "[[rule]]\nrepositories = 'open/*'\npull = ['anyone']\npush = ['alice']\noverwrite = ['alice']\ndelete = ['alice']\n";

/// A registry with access control, and what clients need for it.
pub struct Guarded {
    pub lane: Lane,
    pub folder: tempfile::TempDir,
    pub server: Server,
}

/// Guards: every client logs in, pushes and pulls by TLS, and verifies the certificate: without the authority it
/// refuses. A wrong password is refused. What anyone may pull needs no login.
pub fn over_tls(lane: &Lane) -> Result<(), String> {
    let guarded = Guarded::start(lane, &["--tls", "self"])?;
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
        if lane.has(client, "login by TLS")? {
            test(&guarded)?;
        }
    }
    Ok(())
}

impl Guarded {
    /// Starts a registry with one user and with rules. `encryption` are its options for TLS.
    pub fn start(lane: &Lane, encryption: &[&str]) -> Result<Self, String> {
        let folder = folder()?;
        let at = |name: &str| folder.path().join(name);
        let data = at("data");
        write(&at("password"), PASSWORD)?;
        write(&at("rules.toml"), RULES)?;
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
        let rules = at("rules.toml").display().to_string();
        let options = [encryption, &["--auth", "--auth-rules", &rules]].concat();
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
        })
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Returns the place of the registry, or of an image in it.
    pub fn place(&self) -> String {
        self.server.address().to_string()
    }

    pub fn image(&self, client: Client) -> String {
        format!("{}/open/{}:v1", self.place(), client.name())
    }

    pub fn run(
        &self,
        client: Client,
        operation: &str,
        with: impl FnOnce(Call) -> Call,
    ) -> Result<(), String> {
        self.lane.run(client, operation, with).map(drop)
    }

    /// Checks that a client refuses.
    pub fn refuses(
        &self,
        client: Client,
        operation: &str,
        with: impl FnOnce(Call) -> Call,
    ) -> Result<(), String> {
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
            let credentials = format!("{USER}:{password}");
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
            |call| push(call, &none, PASSWORD),
        )?;
        self.refuses(
            Client::Skopeo,
            "push by TLS with a wrong password",
            |call| push(call, &certs, "wrong"),
        )?;
        self.run(Client::Skopeo, "push by TLS with a password", |call| {
            push(call, &certs, PASSWORD)
        })?;
        let out = format!("dir:{}", self.path("skopeo-out"));
        self.run(Client::Skopeo, "pull by TLS without a login", |call| {
            let call = call.args(["copy", "--src-no-creds", "--src-cert-dir", &certs]);
            call.args([&image, &out])
        })?;
        self.run(Client::Skopeo, "delete by TLS with a password", |call| {
            let credentials = format!("{USER}:{PASSWORD}");
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
        let (good, wrong) = (self.path("password"), self.path("wrong"));
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
                USER,
            ]);
            call.args(["--password-stdin", &place])
                .input(Path::new(password))
        };
        self.lane.step(
            Client::Podman,
            "log in by TLS with a wrong password",
            || {
                log_in(&wrong)?
                    .run()
                    .map_or(Ok(()), |said| Err(format!("it was accepted: {said}")))
            },
        )?;
        self.lane.step(Client::Podman, "log in by TLS", || {
            log_in(&good)?.run().map(drop)
        })?;
        let context = self.folder.path().join("context");
        fs::create_dir(&context).map_err(|e| format!("create: {e}"))?;
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
        self.run(Client::Podman, "push by TLS after a login", |call| {
            let call = call.args(["push", "--cert-dir", &certs, "--authfile", &keys]);
            call.arg(&image)
        })?;
        self.run(Client::Podman, "log out", |call| {
            call.args(["logout", "--authfile", &keys, &place])
        })?;
        self.run(Client::Podman, "pull by TLS without a login", |call| {
            let policy = self.lane.programs.policy().display().to_string();
            let call = call.args(["pull", "--signature-policy", &policy]);
            call.args(["--cert-dir", &certs, "--authfile", &keys, &image])
        })
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
            call.args(["auth", "login", "-u", USER, "-p", password, &place])
        };
        self.run(
            Client::Crane,
            "log in by TLS with a wrong password",
            |call| log_in(call, "wrong"),
        )?;
        self.refuses(Client::Crane, "push by TLS with a wrong password", |call| {
            call.env("SSL_CERT_FILE", &authority)
                .args(["push", &source, &image])
        })?;
        self.run(Client::Crane, "log in by TLS", |call| {
            log_in(call, PASSWORD)
        })?;
        self.refuses(Client::Crane, "push by TLS without the authority", |call| {
            call.args(["push", &source, &image])
        })?;
        self.run(Client::Crane, "push by TLS after a login", |call| {
            call.env("SSL_CERT_FILE", &authority)
                .args(["push", &source, &image])
        })?;
        self.run(Client::Crane, "log out", |call| {
            call.args(["auth", "logout", &place])
        })?;
        self.run(Client::Crane, "pull by TLS without a login", |call| {
            call.env("SSL_CERT_FILE", &authority)
                .args(["pull", &image, &out])
        })
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
                USER,
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
        self.run(Client::Oras, "log in by TLS", |call| log_in(call, PASSWORD))?;
        write(&self.folder.path().join("a.txt"), "a file")?;
        let push = |call: Call| call.folder(self.folder.path()).arg("push");
        self.refuses(Client::Oras, "push by TLS without the authority", |call| {
            push(call).args([&image, "a.txt:text/plain"])
        })?;
        self.run(Client::Oras, "push by TLS after a login", |call| {
            push(call).args(["--ca-file", &authority, &image, "a.txt:text/plain"])
        })?;
        self.run(Client::Oras, "log out", |call| {
            call.args(["logout", &place])
        })?;
        self.run(Client::Oras, "pull by TLS without a login", |call| {
            let call = call.args([
                "pull",
                "--ca-file",
                &authority,
                "--output",
                &self.path("oras-out"),
            ]);
            call.arg(&image)
        })
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
            call.args(["registry", "login", &place, "-u", USER, "-p", password])
        };
        self.refuses(
            Client::Regctl,
            "log in by TLS with a wrong password",
            |call| log_in(call, "wrong"),
        )?;
        self.run(Client::Regctl, "log in by TLS", |call| {
            log_in(call, PASSWORD)
        })?;
        self.run(Client::Regctl, "push by TLS after a login", |call| {
            call.args(["image", "copy", &source, &image])
        })?;
        self.run(Client::Regctl, "log out", |call| {
            call.args(["registry", "logout", &place])
        })?;
        self.run(Client::Regctl, "pull by TLS without a login", |call| {
            let out = format!("ocidir://{}:v1", self.path("regctl-out"));
            call.args(["image", "copy", &image, &out])
        })
    }
}
