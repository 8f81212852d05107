//! The outside clients: where they are, which version, and running one within a bound.
//!
//! Owns: [`Client`], [`Programs`], [`Call`]. Refuses: the configuration of the person at this machine (credentials,
//! mirrors, storage): every client sees an empty home of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CALL_BOUND: Duration = Duration::from_secs(1200);
const POLL: Duration = Duration::from_millis(10);

/// A client that other people wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    Skopeo,
    Podman,
    Crane,
    Oras,
    /// The Python library `oras`, driven by `oras_py.py`.
    OrasPy,
}

impl Client {
    pub const ALL: [Self; 5] = [
        Self::Skopeo,
        Self::Podman,
        Self::Crane,
        Self::Oras,
        Self::OrasPy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Skopeo => "skopeo",
            Self::Podman => "podman",
            Self::Crane => "crane",
            Self::Oras => "oras",
            Self::OrasPy => "oras-py",
        }
    }
}

/// Where each client was found, and what it says its version is. A missing one has the reason.
#[derive(Debug)]
pub struct Programs {
    found: Vec<(Client, Result<Found, String>)>,
    home: tempfile::TempDir,
    calls: AtomicU64,
}

#[derive(Debug, Clone)]
pub struct Found {
    pub path: PathBuf,
    pub version: String,
}

impl Programs {
    /// Looks in `tests/clients/bin` (what `go build` and `.ci/run` put there), then on PATH.
    pub fn find() -> Result<Self, String> {
        let home = tonnage_tests::process::folder()?;
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        fs::write(home.path().join("policy.json"), policy).map_err(|e| format!("policy: {e}"))?;
        // Podman wants the file that DOCKER_CONFIG leads to.
        fs::write(home.path().join("config.json"), "{}").map_err(|e| format!("config: {e}"))?;
        let mut programs = Self {
            found: Vec::new(),
            home,
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

    /// A client that is here (see [`get`](Self::get)), with the options it always needs.
    pub fn call(&self, client: Client) -> Result<Call, String> {
        let found = self.get(client).map_err(str::to_owned)?;
        let mut call = self.prepare(&found.path);
        match client {
            Client::Podman => {
                for (option, folder) in [("--root", "r"), ("--runroot", "rr"), ("--tmpdir", "t")] {
                    call = call.arg(option).arg(self.home.path().join(folder));
                }
                Ok(call.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]))
            }
            Client::Skopeo => Ok(call.arg("--insecure-policy")),
            Client::OrasPy => Ok(call.arg(source_dir().join("oras_py.py"))),
            Client::Crane | Client::Oras => Ok(call),
        }
    }

    /// A signature policy that accepts anything, for clients that want one named.
    pub fn policy(&self) -> PathBuf {
        self.home.path().join("policy.json")
    }

    /// Any other program, in the same empty surroundings.
    pub fn other(&self, program: &str) -> Call {
        self.prepare(Path::new(program))
    }

    /// The Python that has the packages of this lane.
    pub fn python() -> PathBuf {
        let named = std::env::var_os("TONNAGE_TEST_PYTHON").map(PathBuf::from);
        let own = source_dir().join("bin/python/bin/python3");
        named.unwrap_or_else(|| if own.is_file() { own } else { "python3".into() })
    }

    fn prepare(&self, program: &Path) -> Call {
        let mut command = Command::new(program);
        let home = self.home.path();
        command
            .env("HOME", home)
            .env("DOCKER_CONFIG", home)
            .env("XDG_RUNTIME_DIR", home);
        command
            .env("XDG_CONFIG_HOME", home)
            .env("TMPDIR", home)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
            .env_remove("REGISTRY_AUTH_FILE")
            .stdin(Stdio::null());
        // Nothing here may leave the machine.
        for proxy in [
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ] {
            command.env_remove(proxy);
        }
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        Call {
            command,
            said: home.join(format!("call-{number}")),
            line: program.display().to_string(),
        }
    }

    fn look_for(&self, client: Client) -> Result<Found, String> {
        let (path, question): (PathBuf, &[&str]) = match client {
            Client::OrasPy => {
                let ask = "import importlib.metadata as m, oras.client; print(m.version('oras'))";
                (Self::python(), &["-c", ask])
            }
            Client::Crane => (locate("crane"), &["version"]),
            Client::Oras => (locate("oras"), &["version"]),
            Client::Skopeo => (locate("skopeo"), &["--version"]),
            Client::Podman => (locate("podman"), &["--version"]),
        };
        let said = self.prepare(&path).args(question).run()?;
        let version = said.split_whitespace().find(|word| word.contains('.'));
        let version = version
            .unwrap_or("unknown")
            .trim_start_matches('v')
            .to_owned();
        Ok(Found { path, version })
    }
}

fn locate(name: &str) -> PathBuf {
    let own = source_dir().join("bin").join(name);
    if own.is_file() { own } else { name.into() }
}

/// The folder of this lane in the sources.
pub fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// One run of a program.
#[derive(Debug)]
pub struct Call {
    command: Command,
    said: PathBuf,
    line: String,
}

impl Call {
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs to the end and returns stdout. Anything but exit 0 is an error with all it said.
    pub fn run(mut self) -> Result<String, String> {
        let (out, err) = (
            self.said.with_extension("out"),
            self.said.with_extension("err"),
        );
        self.command.stdout(create(&out)?).stderr(create(&err)?);
        let mut child = self
            .command
            .spawn()
            .map_err(|e| format!("run {}: {e}", self.line))?;
        let status = wait(&mut child, &self.line)?;
        let said = String::from_utf8_lossy(&fs::read(&out).unwrap_or_default()).into_owned();
        if status {
            return Ok(said);
        }
        let complaint = fs::read(&err).unwrap_or_default();
        let complaint = String::from_utf8_lossy(&complaint);
        let tail: Vec<&str> = complaint.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Err(format!("`{}` failed: {said}{}", self.line, tail.join("\n")))
    }

    /// Runs with stdout given to `read` as it comes.
    pub fn stream<T>(
        mut self,
        read: impl FnOnce(&mut dyn Read) -> Result<T, String>,
    ) -> Result<T, String> {
        let err = self.said.with_extension("err");
        self.command.stdout(Stdio::piped()).stderr(create(&err)?);
        let mut child = self
            .command
            .spawn()
            .map_err(|e| format!("run {}: {e}", self.line))?;
        let mut stdout = child.stdout.take().ok_or("no stdout")?;
        let seen = read(&mut stdout);
        drop(stdout);
        let status = wait(&mut child, &self.line)?;
        let complaint = fs::read_to_string(&err).unwrap_or_default();
        match (seen, status) {
            (Ok(value), true) => Ok(value),
            (Err(why), _) => Err(format!("`{}`: {why} {complaint}", self.line)),
            (Ok(_), false) => Err(format!("`{}` failed: {complaint}", self.line)),
        }
    }
}

fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|e| format!("create {}: {e}", path.display()))
}

fn wait(child: &mut Child, line: &str) -> Result<bool, String> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child
            .try_wait()
            .map_err(|e| format!("wait for {line}: {e}"))?
        {
            return Ok(status.success());
        }
        if begin.elapsed() > CALL_BOUND {
            drop(child.kill());
            drop(child.wait());
            return Err(format!("`{line}` did not end within {CALL_BOUND:?}"));
        }
        std::thread::sleep(POLL);
    }
}
