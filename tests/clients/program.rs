//! External clients: their location, their version, and runs with a time limit.
//!
//! Owns: [`Client`], [`Programs`]. Refuses: the configuration of this machine's user (credentials, mirrors, storage).
//! Every client gets an empty home directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::call::Call;

/// An external client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    Skopeo,
    Podman,
    Buildah,
    Crane,
    Oras,
    /// The Python library `oras`, called by `oras_py.py`.
    OrasPy,
    Regctl,
    Helm,
    Notation,
    /// The last release series that attaches SBOMs. It writes both forms of signatures, tags and those of later
    /// releases.
    Cosign,
    /// `ctr`, used with a `containerd` of the same release.
    Ctr,
}

/// The clients that must be installed: `TONNAGE_TEST_CLIENTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    None,
    /// `require`: all but those that take long to build.
    Quick,
    /// `all`.
    All,
}

impl Required {
    pub fn of_environment() -> Self {
        match std::env::var("TONNAGE_TEST_CLIENTS").as_deref() {
            Ok("all") => Self::All,
            Ok("require") => Self::Quick,
            _ => Self::None,
        }
    }

    pub fn has(self, client: Client) -> bool {
        self == Self::All || (self == Self::Quick && client.is_quick())
    }
}

impl Client {
    pub const ALL: [Self; 11] = [
        Self::Skopeo,
        Self::Podman,
        Self::Buildah,
        Self::Crane,
        Self::Oras,
        Self::OrasPy,
        Self::Regctl,
        Self::Helm,
        Self::Notation,
        Self::Cosign,
        Self::Ctr,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Skopeo => "skopeo",
            Self::Podman => "podman",
            Self::Buildah => "buildah",
            Self::Crane => "crane",
            Self::Oras => "oras",
            Self::OrasPy => "oras-py",
            Self::Regctl => "regctl",
            Self::Helm => "helm",
            Self::Notation => "notation",
            Self::Cosign => "cosign",
            Self::Ctr => "ctr",
        }
    }

    /// Returns whether `.ci/run` has the time to build it; `.ci/long` builds all.
    pub fn is_quick(self) -> bool {
        !matches!(self, Self::Cosign | Self::Helm)
    }

    /// Returns the Go module from which it is built, and the folder below this one whose `go.mod` pins it.
    pub fn module(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Crane => Some(("github.com/google/go-containerregistry", ".")),
            Self::Oras => Some(("oras.land/oras", ".")),
            Self::Regctl => Some(("github.com/regclient/regclient", "regctl")),
            Self::Helm => Some(("helm.sh/helm/v4", "helm")),
            Self::Notation => Some(("github.com/notaryproject/notation", "notation")),
            Self::Cosign => Some(("github.com/sigstore/cosign/v2", "cosign")),
            Self::Ctr => Some(("github.com/containerd/containerd/v2", "containerd")),
            Self::Skopeo | Self::Podman | Self::Buildah | Self::OrasPy => None,
        }
    }
}

/// The path and version of each client, or the reason why it is missing.
#[derive(Debug)]
pub struct Programs {
    found: Vec<(Client, Result<Found, String>)>,
    home: tempfile::TempDir,
    /// A directory with a short path: podman allows at most 50 characters for its state.
    state: tempfile::TempDir,
    calls: AtomicU64,
}

#[derive(Debug, Clone)]
pub struct Found {
    pub path: PathBuf,
    pub version: String,
}

impl Programs {
    /// Searches `tests/clients/bin` (where `go build` and `.ci/run` put clients), then PATH.
    pub fn find() -> Result<Self, String> {
        let home = tonnage_tests::process::folder()?;
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        fs::write(home.path().join("policy.json"), policy).map_err(|e| format!("policy: {e}"))?;
        // Podman requires the file to which DOCKER_CONFIG leads.
        fs::write(home.path().join("config.json"), "{}").map_err(|e| format!("config: {e}"))?;
        let mut programs = Self {
            found: Vec::new(),
            home,
            state: tempfile::tempdir().map_err(|e| format!("create a folder: {e}"))?,
            calls: AtomicU64::new(0),
        };
        programs.found = Client::ALL
            .map(|client| (client, programs.look_for(client)))
            .into();
        Ok(programs)
    }

    pub fn get(&self, client: Client) -> Result<&Found, &str> {
        let found = self.found.iter().find(|(known, _)| *known == client);
        found.map_or(Err("unknown"), |(_, found)| {
            found.as_ref().map_err(String::as_str)
        })
    }

    /// Returns a run of an installed client (see [`get`](Self::get)), with the options that it always needs.
    pub fn call(&self, client: Client) -> Result<Call, String> {
        let found = self.get(client).map_err(str::to_owned)?;
        let mut call = self.prepare(&found.path);
        match client {
            Client::Podman | Client::Buildah => {
                let root = self.home.path().join(client.name());
                let state = self.state.path().join(client.name());
                call = call.arg("--root").arg(root).arg("--runroot").arg(&state);
                call = call.arg("--storage-driver=vfs");
                Ok(if client == Client::Podman {
                    let call = call.arg("--tmpdir").arg(state.join("t"));
                    call.arg("--cgroup-manager=cgroupfs")
                } else {
                    call
                })
            }
            Client::Skopeo => Ok(call.arg("--insecure-policy")),
            Client::OrasPy => Ok(call.arg(source_dir().join("oras_py.py"))),
            _ => Ok(call),
        }
    }

    /// Returns a signature policy that accepts everything, for clients that require one.
    pub fn policy(&self) -> PathBuf {
        self.home.path().join("policy.json")
    }

    /// Returns a run of any other program in the same empty environment.
    pub fn other(&self, program: &str) -> Call {
        self.prepare(Path::new(program))
    }

    /// Returns the Python that has the packages of these tests.
    pub fn python() -> PathBuf {
        let named = std::env::var_os("TONNAGE_TEST_PYTHON").map(PathBuf::from);
        let own = source_dir().join("bin/python/bin/python3");
        named.unwrap_or_else(|| if own.is_file() { own } else { "python3".into() })
    }

    fn prepare(&self, program: &Path) -> Call {
        let mut command = Command::new(program);
        let home = self.home.path();
        for folder in [
            "HOME",
            "DOCKER_CONFIG",
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME",
            "XDG_DATA_HOME",
            "TMPDIR",
            "TUF_ROOT",
        ] {
            command.env(folder, home);
        }
        command
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("COSIGN_PASSWORD", "of a key that signs nothing but tests")
            .env_remove("REGISTRY_AUTH_FILE")
            .stdin(Stdio::null());
        // No request may leave the machine: the proxy for all hosts but loopback is a port on which nothing listens.
        for proxy in ["http_proxy", "https_proxy", "all_proxy"] {
            for name in [proxy.to_owned(), proxy.to_uppercase()] {
                command.env(name, "http://127.0.0.1:9");
            }
        }
        for name in ["no_proxy", "NO_PROXY"] {
            command.env(name, "127.0.0.1,localhost");
        }
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        Call::new(command, home.join(format!("call-{number}")))
    }

    fn look_for(&self, client: Client) -> Result<Found, String> {
        let (path, question): (PathBuf, &[&str]) = match client {
            Client::OrasPy => {
                let ask = "import importlib.metadata as m, oras.client; print(m.version('oras'))";
                (Self::python(), &["-c", ask])
            }
            Client::Skopeo | Client::Podman | Client::Buildah | Client::Ctr => {
                (locate(client.name()), &["--version"])
            }
            _ => (locate(client.name()), &["version"]),
        };
        let said = self.prepare(&path).args(question).run()?;
        let built = client
            .module()
            .and_then(|(module, _)| self.built_from(&path, module));
        let version = built.unwrap_or_else(|| {
            let version = said.split_whitespace().find(|word| word.contains('.'));
            version.unwrap_or("unknown").to_owned()
        });
        let version = version.trim_start_matches('v').to_owned();
        Ok(Found { path, version })
    }

    /// Returns the version of `module` from which a Go program was built, as the linker recorded it. A tool built as a
    /// dependency does not know its own version.
    fn built_from(&self, program: &Path, module: &str) -> Option<String> {
        let note = format!("\t{module}\tv[^\t]*");
        let grep = self.other("grep");
        let grep = grep.args(["--text", "--only-matching", "--max-count=1", &note]);
        let found = grep.arg(program).run().ok()?;
        Some(found.lines().next()?.rsplit('\t').next()?.to_owned())
    }
}

pub fn locate(name: &str) -> PathBuf {
    let own = source_dir().join("bin").join(name);
    if own.is_file() { own } else { name.into() }
}

/// Returns the source folder of these tests.
pub fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}
