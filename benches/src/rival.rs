//! Runs the two registries as processes: finds or builds them, starts them on an empty directory, reads their CPU time,
//! stops them.
//!
//! Owns: [`Kind`], [`Rival`]. Refuses: settings that favour one registry; each runs with its defaults, logging errors
//! only.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const START_BOUND: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tonnage,
    DockerRegistry,
}

impl Kind {
    pub const BOTH: [Self; 2] = [Self::Tonnage, Self::DockerRegistry];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tonnage => "tonnage",
            Self::DockerRegistry => "docker-registry",
        }
    }

    /// Returns the version that the program reports.
    pub fn version(self, program: &Path) -> String {
        let output = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        let said = output.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
        said.unwrap_or_else(|e| format!("unknown ({e})"))
    }
}

/// Finds `tonnage` beside this program, or has cargo build it.
pub fn find_tonnage() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("find the own program: {e}"))?;
    let folder = own.parent().ok_or("the own program is in no folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--workspace", "--bin", "tonnage"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .status();
    let path = folder.join("tonnage");
    match built {
        Ok(status) if status.success() && path.is_file() => Ok(path),
        Ok(status) => Err(format!(
            "cargo build ended with {status}, {} not built; name it with --tonnage",
            path.display()
        )),
        Err(e) => Err(format!(
            "run cargo build: {e}; name the program with --tonnage"
        )),
    }
}

/// Finds `docker-registry` where Debian puts it.
pub fn find_registry() -> Result<PathBuf, String> {
    let path = PathBuf::from("/usr/bin/docker-registry");
    if path.is_file() {
        return Ok(path);
    }
    Err("there is no /usr/bin/docker-registry; apt-get install docker-registry, or name it with --registry".into())
}

/// A running registry.
#[derive(Debug)]
pub struct Rival {
    pub kind: Kind,
    pub address: SocketAddr,
    pub folder: PathBuf,
    child: Child,
}

impl Rival {
    /// Starts `program`, or the tonnage that cargo builds, in a temporary folder in `parent`. The folder is removed
    /// with the second part of the result.
    pub fn tonnage(program: Option<PathBuf>, parent: &Path) -> Result<(Self, TempDir), String> {
        let program = program.map_or_else(find_tonnage, Ok)?;
        fs::create_dir_all(parent).map_err(|e| format!("create the folder: {e}"))?;
        let folder = tempfile::tempdir_in(parent).map_err(|e| format!("make a folder: {e}"))?;
        Ok((Self::start(Kind::Tonnage, &program, folder.path())?, folder))
    }

    /// Starts `program` on a new folder `folder`.
    pub fn start(kind: Kind, program: &Path, folder: &Path) -> Result<Self, String> {
        fs::create_dir_all(folder).map_err(|e| format!("create {}: {e}", folder.display()))?;
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = address.map_err(|e| format!("find a port: {e}"))?;
        let log = File::create(folder.join("log")).map_err(|e| format!("create the log: {e}"))?;
        let err = log.try_clone().map_err(|e| format!("share the log: {e}"))?;
        let mut command = Command::new(program);
        match kind {
            Kind::Tonnage => {
                command.arg("serve").arg("--data").arg(folder.join("data"));
                command.args(["--listen", &address.to_string(), "--admin-listen", "off"]);
            }
            Kind::DockerRegistry => {
                let config = folder.join("config.yml");
                fs::write(&config, docker_config(&folder.join("data"), address))
                    .map_err(|e| format!("write {}: {e}", config.display()))?;
                command.arg("serve").arg(config);
            }
        }
        command.stdin(Stdio::null()).stdout(log).stderr(err);
        let child = command
            .spawn()
            .map_err(|e| format!("run {}: {e}", program.display()))?;
        let mut rival = Self {
            kind,
            address,
            folder: folder.to_owned(),
            child,
        };
        rival.wait_ready()?;
        Ok(rival)
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < START_BOUND {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.error_with_log(&format!("ended with {status}")));
            }
            if answers(self.address).unwrap_or(false) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(self.error_with_log("was not ready in time"))
    }

    fn error_with_log(&self, what: &str) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        format!("{} {what}:\n{log}", self.kind.name())
    }

    /// Returns the CPU seconds used so far, user and system, of all threads.
    pub fn cpu_seconds(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(&path).map_err(|e| format!("read {path}: {e}"))?;
        // The program's name may contain spaces, so fields are counted after it. utime and stime are the 14th and 15th
        // field.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks = || fields.next().and_then(|field| field.parse::<u32>().ok());
        match (ticks(), ticks()) {
            (Some(user), Some(system)) => Ok(f64::from(user + system) / TICKS_PER_SECOND),
            _ => Err(format!("{path} has an unknown form")),
        }
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its anonymous memory in KiB.
    pub fn memory_kib(&self) -> u64 {
        anonymous_kib(self.pid()).unwrap_or_default()
    }

    /// Returns the peak of its resident memory in MiB, mapped files included.
    pub fn peak_mib(&self) -> Option<u64> {
        status_kib(self.pid(), "VmHWM:").map(|kib| kib >> 10)
    }

    /// Returns the file in which docker-registry stores a blob.
    pub fn docker_blob(folder: &Path, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = folder.join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

/// Returns `RssAnon` of a process in KiB: what it allocated, without mapped files.
pub fn anonymous_kib(pid: u32) -> Option<u64> {
    status_kib(pid, "RssAnon:")
}

/// Returns a field of `/proc/PID/status` that is in KiB; `name` ends with its colon.
pub fn status_kib(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = status.lines().find_map(|line| line.strip_prefix(name))?;
    field.split_whitespace().next()?.parse().ok()
}

/// The unit in which the kernel reports CPU time; the same on every supported architecture.
const TICKS_PER_SECOND: f64 = 100.0;

impl Drop for Rival {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn docker_config(data: &Path, address: SocketAddr) -> String {
    let data = data.display();
    format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage:\n  cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: {data}}}\n  \
         delete: {{enabled: true}}\nhttp: {{addr: \"{address}\"}}\n"
    )
}

fn answers(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
