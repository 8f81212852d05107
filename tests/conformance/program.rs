//! The conformance program: its path, its version, and a run with a time limit.
//!
//! Owns: [`Program`], [`Said`]. Refuses: settings of this machine's user (`OCI_*` variables, a configuration file in
//! the folder, proxies), which could switch tests off. Invariant: all switches are as in the program's `dev` profile,
//! except for the one data set that a run may add.

use std::fmt;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The limit for a run. It takes about a second; the limit is for a server that hangs.
const RUN_BOUND: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(10);
const MODULE: &str = "github.com/opencontainers/distribution-spec/conformance";

/// The conformance program.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    version: String,
}

/// The exit status of a run, and the last lines of its output.
#[derive(Debug)]
pub struct Said {
    pub success: bool,
    ended: String,
    tail: String,
}

impl Program {
    /// Finds the program: `TONNAGE_TEST_CONFORMANCE`, else what `go build` and `.ci/run` put into `tests/clients/bin`.
    /// PATH is not searched, because the program's name is too common.
    pub fn find() -> Result<Self, String> {
        let path = match std::env::var_os("TONNAGE_TEST_CONFORMANCE") {
            Some(named) => PathBuf::from(named),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/bin/conformance"),
        };
        // The program runs in another folder, so a relative path is made absolute here.
        let read = path
            .canonicalize()
            .and_then(|path| Ok((fs::read(&path)?, path)));
        let (bytes, path) = read.map_err(|e| {
            format!(
                "{} cannot be read ({e}); build it: .ci/clients quick",
                path.display()
            )
        })?;
        let version = built_in_version(&bytes).unwrap_or_else(|| "of unknown version".into());
        Ok(Self { path, version })
    }

    /// Returns the module's version that Go wrote into the program, which has no option to print it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs all tests against the registry at `address`, over cleartext HTTP. The reports go into `results`. `sparse`
    /// adds manifests that list content which is never pushed.
    pub fn run(&self, address: SocketAddr, sparse: bool, results: &Path) -> Result<Said, String> {
        let log = results.join("said");
        let out = File::create(&log).map_err(|e| format!("create {}: {e}", log.display()))?;
        let err = out
            .try_clone()
            .map_err(|e| format!("share {}: {e}", log.display()))?;
        let mut command = Command::new(&self.path);
        for (name, _) in std::env::vars_os() {
            let known = name.to_string_lossy().to_ascii_uppercase();
            if known.starts_with("OCI_") || known.ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        command
            .env("OCI_REGISTRY", address.to_string())
            .env("OCI_TLS", "disabled")
            .env("OCI_VERSION", "dev")
            .env("OCI_DATA_SPARSE", sparse.to_string())
            .env("OCI_RESULTS_DIR", results)
            .current_dir(results)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let name = self.path.display();
        let mut child = command.spawn().map_err(|e| format!("run {name}: {e}"))?;
        let begin = Instant::now();
        loop {
            if let Some(status) = child
                .try_wait()
                .map_err(|e| format!("wait for {name}: {e}"))?
            {
                return Ok(Said {
                    success: status.success(),
                    ended: status.to_string(),
                    tail: tail(&log),
                });
            }
            if begin.elapsed() > RUN_BOUND {
                drop(child.kill());
                drop(child.wait());
                return Err(format!(
                    "{name} did not end within {RUN_BOUND:?}:\n{}",
                    tail(&log)
                ));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; its last lines:\n{}", self.ended, self.tail)
    }
}

/// Returns the main module's version, as `go version -m` prints it.
fn built_in_version(program: &[u8]) -> Option<String> {
    let key = format!("mod\t{MODULE}\t");
    let found = program
        .windows(key.len())
        .position(|window| window == key.as_bytes())?;
    let rest = program.get(found + key.len()..)?;
    let version = rest.split(|byte| matches!(byte, b'\t' | b'\n')).next()?;
    String::from_utf8(version.to_vec()).ok()
}

fn tail(log: &Path) -> String {
    let said = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let from = lines.len().saturating_sub(12);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// Guards: the printed version is the program's own.
#[test]
fn the_version_is_read_out_of_the_program() {
    let program =
        format!("\0\x7fELF\npath\t{MODULE}\nmod\t{MODULE}\tv0.0.0-1-abc\th1:x=\ndep\tother\tv2\n");
    assert_eq!(
        built_in_version(program.as_bytes()).as_deref(),
        Some("v0.0.0-1-abc")
    );
    assert_eq!(built_in_version(b"no Go program"), None);
}
